"""The whole node: 10 MB films by C-STORE in, Secondary Capture and report in Orthanc, on the same cores.

    python -m bench.node --films 300 --cxr ../shared/data/cxr [--out FILE]

Prints films a second beside what the bare network reaches in the same run, the node's core-seconds a film
outside the network, and the latency of single films on the idle node.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pydicom
import yaml
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from bench.peers import free_port, running_orthanc
from clearfilm.config import Heatmap, Worker
from clearfilm.dicom.pixels import network_input
from clearfilm.vision.assemble import resolve_bundle
from clearfilm.vision.bundle import load_bundle
from clearfilm.vision.engine import Engine
from cli import test_pacs

ROWS, COLUMNS = 2500, 2048
BASES = 12
BARE_BATCHES = 12
LATENCY_FILMS = 30
QUIET_SECONDS = 1
REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Throughput, cost and latency of the whole node.")
    parser.add_argument("--films", type=int, default=300)
    parser.add_argument("--cxr", type=Path, required=True, help="folder with nih/*.jpg")
    parser.add_argument("--bundle", type=Path, default=REPOSITORY / "models" / "reference")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=REPOSITORY, prefix="bench-") as name:
        folder = Path(name)
        films = make_films(folder / "films", arguments.cxr, arguments.films + LATENCY_FILMS)
        bare = bare_network(arguments.cxr, arguments.bundle, folder)
        loaded = throughput(folder, films[: arguments.films], arguments.bundle)
        latency = idle_latency(folder, films[arguments.films :], arguments.bundle)
    figures = {
        "films": arguments.films,
        "film_megabytes": ROWS * COLUMNS * 2 / 1e6,
        "bare_films_per_second": bare["films_per_second"],
        "node_films_per_second": loaded["films_per_second"],
        "share_of_bare": loaded["films_per_second"] / bare["films_per_second"],
        "network_core_seconds": bare["core_seconds"],
        "node_core_seconds": loaded["core_seconds"],
        "outside_network_core_seconds": loaded["core_seconds"] - bare["core_seconds"],
        "core_seconds_by_process": loaded["by_process"],
        **latency,
    }
    for key, value in figures.items():
        print(f"{key:32} {value if not isinstance(value, float) else round(value, 3)}")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


def make_films(folder: Path, cxr: Path, count: int) -> list[Path]:
    """Real films enlarged to a detector's size, 16 bit, each in a study of its own."""
    folder.mkdir()
    pictures = []
    for path in sorted((cxr / "nih").glob("*.jpg"))[:BASES]:
        small = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        large = cv2.resize(small, (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC).astype(np.uint16) * 16
        noise = np.random.default_rng(1).integers(0, 16, large.shape, dtype=np.uint16)
        pictures.append((large + noise).tobytes())
    paths = []
    for number in range(count):
        film = _film(number)
        film.PixelData = pictures[number % len(pictures)]
        paths.append(folder / f"{number:05d}.dcm")
        film.save_as(paths[-1], enforce_file_format=True)
    return paths


def bare_network(cxr: Path, bundle_folder: Path, folder: Path) -> dict[str, float]:
    """What the network alone reaches in batches of eight, and the core-seconds that it takes a film."""
    bundle = load_bundle(resolve_bundle(bundle_folder, folder / "bare"))
    engine = Engine(bundle, Worker(), Heatmap())
    edge = bundle.description.input_edge
    paths = sorted((cxr / "nih").glob("*.jpg"))[:8]
    batch = np.stack([network_input(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), edge) for path in paths])
    for _ in range(3):
        engine.run(batch)
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(BARE_BATCHES):
        engine.run(batch)
    films = BARE_BATCHES * len(batch)
    return {
        "films_per_second": films / (time.perf_counter() - start),
        "core_seconds": (time.process_time() - cpu) / films,
    }


def throughput(folder: Path, films: list[Path], bundle: Path) -> dict[str, Any]:
    """From the first C-STORE to the last report in Orthanc."""
    with ExitStack() as stack:
        orthanc = stack.enter_context(running_orthanc(folder / "orthanc"))
        node = stack.enter_context(running_node(folder / "node", "ORTHANC", orthanc.dicom_port, bundle))
        before = node.core_seconds()
        start = time.perf_counter()
        sender = subprocess.Popen(
            ["storescu", "-aet", "MODALITY", "-aec", "CLEARFILM", "127.0.0.1", str(node.port), *films],
            env=os.environ | {"TCP_NODELAY": "1"},
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 600
        while orthanc.instances() < 2 * len(films):
            if time.monotonic() > deadline:
                raise SystemExit(f"only {orthanc.instances()} of {2 * len(films)} results arrived")
            time.sleep(0.2)
        seconds = time.perf_counter() - start
        sender.wait()
        spent = {name: value - before.get(name, 0.0) for name, value in node.core_seconds().items()}
    return {
        "films_per_second": len(films) / seconds,
        "core_seconds": sum(spent.values()) / len(films),
        "by_process": {name: round(value / len(films), 4) for name, value in spent.items()},
    }


def idle_latency(folder: Path, films: list[Path], bundle: Path) -> dict[str, float]:
    """From the answer to a film's C-STORE to its report at the PACS, less the quiet time."""
    waits = []
    with ExitStack() as stack:
        pacs, port = stack.enter_context(test_pacs.running(folder / "pacs", "PACS", "127.0.0.1", 0))
        node = stack.enter_context(running_node(folder / "idle", "PACS", port, bundle))
        for film in films:
            subprocess.run(
                ["storescu", "-aet", "MODALITY", "-aec", "CLEARFILM", "127.0.0.1", str(node.port), film],
                env=os.environ | {"TCP_NODELAY": "1"},
                check=True,
            )
            answered = time.perf_counter()
            study = str(pydicom.dcmread(film, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
            while len(pacs.objects(study)) < 2:
                time.sleep(0.01)
                if time.perf_counter() - answered > 30:
                    raise SystemExit("no result within 30 s")
            waits.append(time.perf_counter() - answered - QUIET_SECONDS)
    ordered = sorted(waits)
    return {
        "latency_median_seconds": ordered[len(ordered) // 2],
        "latency_p95_seconds": ordered[int(len(ordered) * 0.95)],
    }


class RunningNode:
    """A node under `clearfilm up`."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = psutil.Process(process.pid)
        self.port = port

    def core_seconds(self) -> dict[str, float]:
        """User and system time of every process so far, ended children included."""
        spent: dict[str, float] = {}
        for process in [self._process, *self._process.children(recursive=True)]:
            times = process.cpu_times()
            words = re.sub(r".*(cli\.main|-m) ", "", " ".join(process.cmdline())).split()
            name = words[0] if words else process.name()
            total = times.user + times.system + times.children_user + times.children_system
            spent[name] = spent.get(name, 0.0) + total
        return spent


@contextmanager
def running_node(folder: Path, pacs_title: str, pacs_port: int, bundle: Path) -> Iterator[RunningNode]:
    """The shipped configuration on free ports."""
    values = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    values["node"]["port"] = free_port()
    values["destinations"][0] |= {"ae_title": pacs_title, "port": pacs_port}
    values["study"]["quiet_seconds"] = QUIET_SECONDS
    values["model"]["bundle"] = str(bundle.resolve())
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up", "--config", folder / "config.yaml"],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("ready:"):
            raise SystemExit((folder / "log").read_text()[-2000:])
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield RunningNode(process, values["node"]["port"])
    finally:
        process.terminate()
        process.wait(timeout=90)


def _film(number: int) -> pydicom.Dataset:
    film = pydicom.Dataset()
    film.file_meta = pydicom.dataset.FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    film.SOPInstanceUID, film.StudyInstanceUID, film.SeriesInstanceUID = (generate_uid() for _ in range(3))
    film.Modality, film.BodyPartExamined, film.ViewPosition = "CR", "CHEST", "PA"
    film.PatientName, film.PatientID, film.PatientAge = f"BENCH^{number}", f"BENCH-{number}", "050Y"
    film.StudyDate, film.StudyTime = "20260101", "120000"
    film.Rows, film.Columns = ROWS, COLUMNS
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    return film


if __name__ == "__main__":
    main()
