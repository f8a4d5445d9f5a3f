"""Receiving, durable: this listener against Orthanc and dcmtk's storescp, the same load in one run.

python -m bench.receive --out receive.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench import replay

SIZES = {"10 MB": 2236, "128 KiB": 256}
OBJECTS = {("10 MB", 1): 20, ("10 MB", 8): 40, ("128 KiB", 1): 100, ("128 KiB", 8): 400}
_START_SECONDS = 60.0
Figures = dict[str, dict[str, list[float]]]
_LISTENER = """
import sys
from pathlib import Path
from clearfilm import logs
from clearfilm.config import Config, Node, Sender
from storescp.main import serve
logs.configure("storescp")
port, folder = int(sys.argv[1]), Path(sys.argv[2])
sender = Sender(name="bench", ae_title="BENCH", addresses=("127.0.0.1",))
sys.exit(serve(Config(data_folder=folder, node=Node(port=port), senders=(sender,))))
"""


@dataclass(frozen=True)
class Peer:
    """A receiver under test."""

    name: str
    ae_title: str
    start: Callable[[int, Path], list[subprocess.Popen[bytes]]]


def _popen(command: Sequence[str | Path], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment)


def _clearfilm(port: int, folder: Path) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", _LISTENER, str(port), folder / "data"]
    return [_popen(command, folder / f"log{number}") for number in range(2)]


def _orthanc(port: int, folder: Path) -> list[subprocess.Popen[bytes]]:
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomThreadsCount": 8,
        "MaximumPduLength": 131_072,
        "SyncStorageArea": True,
        "HttpServerEnabled": False,
        "Plugins": [],
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return [_popen(["Orthanc", path], folder / "log", TCP_NODELAY="1")]


def _dcmtk(port: int, folder: Path) -> list[subprocess.Popen[bytes]]:
    (folder / "films").mkdir()
    command = ["storescp", "--fork", "-pdu", "131072", "-od", folder / "films", str(port)]
    return [_popen(command, folder / "log", TCP_NODELAY="1")]


PEERS = (
    Peer("clearfilm (2 processes)", "CLEARFILM", _clearfilm),
    Peer("Orthanc", "ORTHANC", _orthanc),
    Peer("dcmtk storescp --fork (no fsync)", "STORESCP", _dcmtk),
)


def main() -> None:
    """Run all cells of all peers, interleaved, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write every figure as JSON")
    parser.add_argument("--folder", type=Path, help="where the receivers store; default: a temporary folder")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="receive-", dir=arguments.folder))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        receivers = [(peer, *_started(peer, root, stack)) for peer in PEERS]
        rates, cores, memory = _measure(receivers, arguments.rounds)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "rounds": arguments.rounds,
        "films_per_second": rates,
        "core_milliseconds_per_film": cores,
        "peak_memory_megabytes": memory,
    }
    _print("films/s", rates, lambda ours, theirs: ours / theirs)
    _print("core-milliseconds a film", cores, lambda ours, theirs: theirs / ours)
    print("largest process, MB:", "   ".join(f"{name}: {figure:.0f}" for name, figure in memory.items()))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _started(peer: Peer, root: Path, stack: ExitStack) -> tuple[int, list[subprocess.Popen[bytes]]]:
    folder = root / peer.ae_title
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    processes = peer.start(port, folder)
    for process in processes:
        stack.callback(process.wait)
        stack.callback(process.terminate)
    deadline = time.monotonic() + _START_SECONDS
    while not _listens(port, len(processes)):
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            raise SystemExit(f"{peer.name} did not start:\n{(folder / 'log').read_text(errors='replace')}")
        time.sleep(0.1)
    return port, processes


def _listens(port: int, sockets: int) -> bool:
    found = psutil.net_connections("tcp4")
    return sum(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in found) >= sockets


def _measure(receivers: list[Any], rounds: int) -> tuple[Figures, Figures, dict[str, float]]:
    rates: Figures = {}
    cores: Figures = {}
    memory = {peer.name: 0.0 for peer, _, _ in receivers}
    noise = os.urandom(1 << 20)
    number = 0
    for round_number in range(rounds + 1):  # the first warms up and does not count
        for (size, associations), objects in OBJECTS.items():
            data_set = replay.film(SIZES[size], noise)
            cell = f"{size}, {associations} associations"
            for peer, port, processes in receivers:
                os.sync()  # nobody pays for what another one left to be written
                before = _core_seconds(processes)
                outcome = replay.send(
                    port, peer.ae_title, data_set, objects=objects, associations=associations, first=number
                )
                number += objects
                if outcome.refused:
                    raise SystemExit(f"{peer.name} refused {outcome.refused} films")
                memory[peer.name] = max(memory[peer.name], _resident(processes))
                if not round_number:
                    continue
                spent = (_core_seconds(processes) - before) / objects * 1000
                rates.setdefault(cell, {}).setdefault(peer.name, []).append(round(objects / outcome.seconds, 1))
                cores.setdefault(cell, {}).setdefault(peer.name, []).append(round(spent, 2))
    return rates, cores, memory


def _core_seconds(processes: list[subprocess.Popen[bytes]]) -> float:
    """User and system time, of children that have ended too."""
    return sum(sum(psutil.Process(process.pid).cpu_times()[:4]) for process in processes)


def _resident(processes: list[subprocess.Popen[bytes]]) -> float:
    """Megabytes of the largest process."""
    return round(max(psutil.Process(process.pid).memory_info().rss for process in processes) / 1e6, 1)


def _print(title: str, figures: Figures, ratio: Callable[[float, float], float]) -> None:
    names = [peer.name for peer in PEERS]
    print(f"{title} (median); the ratio is to Orthanc, above 1 is better")
    for cell, found in figures.items():
        medians = {name: statistics.median(found[name]) for name in names}
        line = "   ".join(f"{name}: {medians[name]:.4g}" for name in names)
        print(f"{cell:24}{line}   ratio {ratio(medians[names[0]], medians['Orthanc']):.2f}")


if __name__ == "__main__":
    main()
