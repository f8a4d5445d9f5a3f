"""The listener as a process of its own, with foreign programs and the files of the zoo as senders."""

import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import psutil
import pytest
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info, read_preamble
from sqlalchemy import select

from clearfilm.config import Config
from db.models import Instance
from tests.integration.conftest import missing
from tests.integration.listening import configuration, film, stored_files
from tests.integration.raw_peer import RawPeer
from tests.integration.test_storescp import rows, store, wait_until

_PROGRAM = """
import sys
from pathlib import Path
from clearfilm import logs
from clearfilm.config import Config
from storescp.main import serve
config = Config.model_validate_json(Path(sys.argv[1]).read_text())
logs.configure("storescp")
code = serve(config, lambda port: print(port, "torch" in sys.modules, flush=True))
sys.exit(code)
"""


@dataclass(frozen=True)
class Process:
    """A listener that serves."""

    port: int
    has_torch: bool
    popen: subprocess.Popen[str]
    log: Path


@contextmanager
def process(config: Config, folder: Path, **environment: str) -> Iterator[Process]:
    settings = folder / "config.json"
    settings.write_text(config.model_dump_json(), encoding="utf-8")
    log = folder / "log"
    with log.open("a") as errors:
        popen = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, settings],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | environment,
        )
    assert popen.stdout is not None
    with popen.stdout:
        try:
            port, has_torch = popen.stdout.readline().split()
            yield Process(int(port), has_torch == "True", popen, log)
        finally:
            popen.kill()
            popen.wait()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configuration(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_process_in_good_order(config: Config, tmp_path: Path, number: signal.Signals) -> None:
    with process(config, tmp_path) as listener, RawPeer(listener.port) as idle:
        idle.accepted()
        listener.popen.send_signal(number)
        assert listener.popen.wait(timeout=10) == 0
        assert idle.closed()


def test_big_films_cost_little_memory_and_no_torch(config: Config, tmp_path: Path) -> None:
    with process(config, tmp_path) as listener:
        assert not listener.has_torch
        for number in range(12):
            instance = f"1.2.{number}"
            assert store(listener.port, film(instance, size=2236), instance=instance).status == 0
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{listener.popen.pid}/status").read_text())
        assert peak is not None
        assert int(peak[1]) * 1024 < 150e6
        assert psutil.Process(listener.popen.pid).num_threads() < 30


@pytest.mark.parametrize(
    "point",
    [
        "before-first-byte",
        "middle-of-file",
        "written-before-fsync",
        "fsynced-before-rename",
        "renamed-before-commit",
        "committed-before-answer",
    ],
)
def test_killed_listener_loses_and_doubles_nothing(config: Config, tmp_path: Path, point: str) -> None:
    data = film("1.2.1")
    orders = tmp_path / "orders"
    orders.mkdir()
    (orders / point).touch()
    with process(config, tmp_path, CLEARFILM_CRASH_FOLDER=str(orders)) as listener:
        with RawPeer(listener.port) as peer, pytest.raises((AssertionError, OSError)):
            peer.accepted().store(data, instance="1.2.1")
        assert listener.popen.wait(timeout=10) == -signal.SIGKILL
    with process(config, tmp_path) as listener:
        assert store(listener.port, data, instance="1.2.1").status == 0
        wait_until(lambda: [path.suffix for path in stored_files(config)] == [".dcm"])
    assert len(rows(config, select(Instance))) == 1


def test_log_names_no_patient(config: Config, tmp_path: Path) -> None:
    with process(config, tmp_path) as listener:
        store(listener.port, film("1.2.1", PatientName="Canary^Name", PatientID="CANARY"), instance="1.2.1")
        store(listener.port, film("1.2.1", PatientName="Canary^Other", PatientID="CANARY"), instance="1.2.1")
        store(listener.port, film("1.2.1", PatientName="Canary^Other")[:-9], instance="1.2.1")
        text = listener.log.read_text()
    assert "film stored" in text
    assert "film refused" in text
    assert "canary" not in text.lower()


@pytest.mark.peer
def test_dcmtk_echoes_and_stores(config: Config, tmp_path: Path) -> None:
    if which("storescu") is None:
        missing("dcmtk")
    source = tmp_path / "source.dcm"
    with process(config, tmp_path) as listener:
        assert store(listener.port, film("1.2.1", size=600), instance="1.2.1").status == 0
        [stored] = stored_files(config)
        ds = dcmread(stored)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.2"
        ds.save_as(source)
        peer = ["-aet", "MODALITY", "-aec", "CLEARFILM", "127.0.0.1", str(listener.port)]
        subprocess.run(["echoscu", *peer], check=True, timeout=20)
        subprocess.run(["storescu", *peer, source], check=True, timeout=20, env=os.environ | {"TCP_NODELAY": "1"})
        denied = ["-aet", "NOBODY", *peer[2:]]
        assert subprocess.run(["echoscu", *denied], check=False, capture_output=True, timeout=20).returncode
    assert len(stored_files(config)) == 2


def test_every_file_of_the_zoo_ends_in_an_answer(config: Config, tmp_path: Path, shared: Path) -> None:
    zoo = shared / "data" / "dicom-zoo"
    names = [row["file"] for row in csv.DictReader((zoo / "zoo.csv").read_text("utf-8").splitlines())]
    answers: dict[str, str] = {}
    with process(config, tmp_path) as listener:
        for name in names:
            answers[name] = sent(listener.port, zoo / name)
        with RawPeer(listener.port) as peer:
            assert peer.accepted(contexts=[(1, "1.2.840.10008.1.1")]).echo().status == 0
        assert "internal error" not in listener.log.read_text()
    stored = [name for name, answer in answers.items() if answer == "0x0000"]
    assert len(stored) > 30
    paths = {config.data_folder / instance.path for instance in rows(config, select(Instance))}
    assert paths == set(stored_files(config))
    assert set(answers.values()) <= {"no file", "not negotiated", "0x0000", "0x0117", "0xa900", "0xc000"}


def sent(port: int, path: Path) -> str:
    """Send a file's data set as it is, in the transfer syntax that its file meta information names."""
    try:
        with path.open("rb") as stream:
            read_preamble(stream, force=False)
            start = stream.tell()
            meta = read_file_meta_info(path)
            stream.seek(start + 12 + meta.FileMetaInformationGroupLength)
            data = stream.read()
        names = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
        syntax = str(meta.TransferSyntaxUID)
    except Exception:
        return "no file"
    with RawPeer(port) as peer:
        answer = peer.associate(calling="SCANNER", contexts=[(3, names[0])], syntax=syntax)
        assert answer is not None, path.name
        if b"\x21\x00\x00" not in answer[1] or answer[1][answer[1].index(b"\x21\x00\x00") + 6] != 0:
            return "not negotiated"
        status = peer.store(data, sop_class=names[0], instance=names[1]).status
        peer.release()
    return f"{status:#06x}"
