"""A whole node of real processes for acceptance tests, and the journals that judge it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pydicom
import yaml

from clearfilm import config as configuration
from clearfilm.dicom import scu
from clearfilm.errors import DeliveryError
from cli.test_pacs import JOURNAL
from db import overview
from db.session import Database

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0


def await_condition(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until the condition holds; fail with words when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@dataclass
class Node:
    """One node below `folder`, run by `clearfilm up`."""

    folder: Path
    pacs_port: int
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    has_pages: bool = True
    process: "subprocess.Popen[str] | None" = None
    peer: scu.Peer | None = None
    worklist: str = ""  # address of the web pages

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    def write_config(self) -> None:
        """The shipped configuration with what a test needs otherwise."""
        values = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
        values["node"]["port"] = 0
        values["worklist"]["port"] = 0
        values["destinations"][0]["port"] = self.pacs_port
        values["study"]["quiet_seconds"] = 1
        values["disk"] = {"low_water_percent": 0, "low_water_gigabytes": 0.1}
        values["model"]["bundle"] = str(REPOSITORY / "models" / "reference")
        for path, value in self.settings.items():
            section, _, key = path.partition(".")
            values[section][key] = value
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(yaml.safe_dump(values), encoding="utf-8")

    def start(self) -> None:
        """Start and wait for the line that begins with `ready:`."""
        self.write_config()
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "up", "--config", str(self.config_path)],
                cwd=REPOSITORY,
                env=dict(os.environ) | self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready:"):
            self.stop()
            raise AssertionError(f"the node did not start:\n{self.log[-3000:]}")
        title, _, address = line.removeprefix("ready:").strip().partition("@")
        host, _, port = address.partition(":")
        self.peer = scu.Peer(title, host, int(port), 5, 30)
        if self.has_pages:
            self.worklist = self.process.stdout.readline().removeprefix("web pages:").strip()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(timeout=90)
        if self.process.stdout:
            self.process.stdout.close()
        return code

    def kill_all(self) -> None:
        """SIGKILL to every process of the node at once: a power cut of the program."""
        assert self.process is not None
        family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for process in family:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=30)
        self.process.wait(timeout=30)
        if self.process.stdout:
            self.process.stdout.close()

    def children(self, command: str) -> list[psutil.Process]:
        """Running processes of one kind, such as "worker"."""
        assert self.process is not None
        return [
            child for child in psutil.Process(self.process.pid).children(recursive=False) if command in child.cmdline()
        ]

    def send(self, path: Path) -> int | None:
        """C-STORE one film: the status, or None if no answer came."""
        assert self.peer is not None
        meta = pydicom.dcmread(path, stop_before_pixels=True).file_meta
        contexts = scu.storage_contexts(str(meta.MediaStorageSOPClassUID), [str(meta.TransferSyntaxUID)])
        try:
            with scu.associate("MODALITY", self.peer, contexts) as association:
                return scu.store(association, self.peer, path)
        except DeliveryError as error:
            return error.status

    def send_until_stored(self, path: Path, seconds: float = 60) -> None:
        """As a modality does: again until the answer is success."""
        await_condition(lambda: self.send(path) == scu.SUCCESS, seconds, f"{path.name} acknowledged")

    def counts(self) -> dict[str, Any]:
        """What `clearfilm status --json` prints."""
        database = Database(configuration.load(self.config_path).database_url)
        try:
            with database.read() as session:
                return overview.counts(session, now=database.now(session))
        finally:
            database.close()

    def study(self, uid: str) -> dict[str, Any] | None:
        """What `clearfilm study --json` prints."""
        database = Database(configuration.load(self.config_path).database_url)
        try:
            with database.read() as session:
                return overview.timeline(session, uid)
        finally:
            database.close()

    def is_done(self) -> bool:
        """Nothing waits and nothing runs."""
        jobs = self.counts()["jobs"]
        return not any(states.get("queued") or states.get("running") for states in jobs.values())

    def await_done(self, seconds: float = 90) -> None:
        """Wait until every job has ended."""
        await_condition(self.is_done, seconds, "all jobs ended")


def read_journal(pacs_folder: Path) -> list[dict[str, str]]:
    """Everything that the test PACS ever stored, in order; a line that is being written is not there yet."""
    path = pacs_folder / JOURNAL
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def assert_nothing_doubled(journal: list[dict[str, str]]) -> None:
    """The same UID always came with the same bytes."""
    first: dict[str, str] = {}
    for entry in journal:
        assert first.setdefault(entry["instance"], entry["sha256"]) == entry["sha256"]
