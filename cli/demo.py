"""`clearfilm demo`: the real node on the real configuration, sample films in, results out to a test PACS."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pydicom

from clearfilm import config as configuration
from clearfilm.config import Config, Destination
from clearfilm.counts import counted
from clearfilm.errors import ClearfilmError, ConfigurationError, StartupError
from clearfilm.process import stop_event
from clearfilm.triage import Decision
from cli import test_pacs
from cli.send import send_files
from cli.terminal import complain, print_table, progress, say
from cli.worklist import address

START_SECONDS = 180.0
RESULT_SECONDS = 300.0
POLL_SECONDS = 0.5
_SR = "SR"


@dataclass(frozen=True)
class Sample:
    """One study of the sample films."""

    study_instance_uid: str
    patient_name: str
    modalities: str
    films: int


def run_demo(config_path: Path, samples: Path, *, once: bool) -> int:
    """Run the demo.

    Parameters
    ----------
    config_path : pathlib.Path
        The node's configuration, used as it stands.
    samples : pathlib.Path
        Folder of DICOM files.
    once : bool
        End as soon as all results are back, instead of serving until SIGTERM or Ctrl-C.

    Returns
    -------
    int
        0 only if every study came back with a report, and every analysed one with its picture.
    """
    config = configuration.load(config_path)
    sender, destination = _parties(config)
    studies = _read_samples(samples)
    stop = stop_event()
    folder = config.data_folder / "test-pacs"
    with (
        test_pacs.running(folder, destination.ae_title, destination.host, destination.port) as (pacs, _),
        _node(config_path),
    ):
        say(f"sending {counted(sum(study.films for study in studies), 'film')} to {config.node.ae_title}")
        to = f"{config.node.ae_title}@{config.node.address}:{config.node.port}"
        if send_files([samples], to, sender):
            complain("clearfilm: not every sample film was taken")
            return 1
        missing = _await_results(pacs, studies)
        _print_results(pacs, studies)
        say(f"results: {folder}")
        if missing:
            lacking = counted(missing, "study", "studies")
            complain(f"clearfilm: {lacking} came back without complete results; see the log above")
            return 1
        if not once:
            pages = address(config, config.worklist.port)
            say(f"the node goes on serving at {to}, its web pages at {pages}; Ctrl-C ends it")
            stop.wait()
    return 0


def _parties(config: Config) -> tuple[str, Destination]:
    """The title to send under and the destination to play; the demo needs both in the configuration."""
    if not config.destinations or not config.senders:
        raise ConfigurationError("the demo needs one sender and one destination in the configuration")
    title = config.senders[0].ae_title
    return ("MODALITY" if title == "*" else title), config.destinations[0]


def _read_samples(folder: Path) -> list[Sample]:
    headers = [
        pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm")) if path.is_file()
    ]
    if not headers:
        raise ClearfilmError(f"{folder} holds no DICOM files")
    studies: dict[str, list[pydicom.Dataset]] = {}
    for header in headers:
        studies.setdefault(str(header.StudyInstanceUID), []).append(header)
    return [
        Sample(
            study_instance_uid=uid,
            patient_name=str(films[0].get("PatientName", "")).split("=")[-1],
            modalities="/".join(sorted({str(film.Modality) for film in films})),
            films=len(films),
        )
        for uid, films in studies.items()
    ]


@contextmanager
def _node(config_path: Path) -> Iterator[None]:
    """`clearfilm up`, until the block ends."""
    log_path = configuration.load(config_path).data_folder / "demo.log"
    log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        node = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "cli.main", "up", "--config", str(config_path)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        say(f"starting the node (log: {log_path})")
        try:
            _await_ready(node, log_path)
            yield
        finally:
            node.terminate()
            node.wait(timeout=90)


def _await_ready(node: "subprocess.Popen[str]", log_path: Path) -> None:
    assert node.stdout is not None
    for line in node.stdout:
        if line.startswith("ready:"):
            say(line.strip())
            # Further lines, such as the first login's, as they come.
            threading.Thread(target=_relay, args=(node.stdout,), daemon=True).start()
            return
    last = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
    raise StartupError(f"the node did not start: {' '.join(last)}")


def _relay(lines: TextIO) -> None:
    for line in lines:
        say(line.strip())


def _await_results(pacs: test_pacs.TestPacs, studies: list[Sample]) -> int:
    """Wait until every study has come back; gives the number of those that have not."""
    deadline = time.monotonic() + RESULT_SECONDS
    with progress() as bar:
        task = bar.add_task("results", total=len(studies))
        while True:
            missing = sum(not _is_complete(pacs, study) for study in studies)
            bar.update(task, completed=len(studies) - missing)
            if not missing or time.monotonic() > deadline:
                return missing
            time.sleep(POLL_SECONDS)


def _is_complete(pacs: test_pacs.TestPacs, study: Sample) -> bool:
    modalities = [header.Modality for header in _headers(pacs, study)]
    decided = _decision(pacs, study)
    return _SR in modalities and (decided == Decision.NOT_ANALYSED.words or len(modalities) > 1)


def _headers(pacs: test_pacs.TestPacs, study: Sample) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in pacs.objects(study.study_instance_uid)]


def _decision(pacs: test_pacs.TestPacs, study: Sample) -> str | None:
    """What the latest report says in its Series Description."""
    reports = [header for header in _headers(pacs, study) if header.Modality == _SR]
    if not reports:
        return None
    latest = max(reports, key=lambda header: (header.ContentDate, header.ContentTime))
    return next(
        (answer.words for answer in Decision if answer.series_description == latest.SeriesDescription),
        None,
    )


def _print_results(pacs: test_pacs.TestPacs, studies: list[Sample]) -> None:
    rows: list[list[object]] = []
    for study in studies:
        kinds = [header.Modality for header in _headers(pacs, study)]
        came = f"{kinds.count('OT')} SC, {kinds.count(_SR)} SR"
        rows.append([study.patient_name, study.modalities, study.films, _decision(pacs, study) or "missing", came])
    print_table("", ["patient", "modality", "films", "decision", "came back"], rows)
