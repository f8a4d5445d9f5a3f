"""Foreign receivers, started for benchmarks and for tests."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 60.0


def free_port() -> int:
    """A port that was free a moment ago, for programs that cannot tell which one they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """A running Orthanc.

    Parameters
    ----------
    dicom_port, http_port : int
        On 127.0.0.1.
    """

    def __init__(self, dicom_port: int, http_port: int) -> None:
        self.dicom_port = dicom_port
        self.http_port = http_port

    def get(self, path: str) -> Any:
        """A resource of its REST interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def instances(self) -> int:
        """Number of stored objects."""
        return int(self.get("/statistics")["CountInstances"])


@contextmanager
def running_orthanc(folder: Path, ae_title: str = "ORTHANC", **settings: Any) -> Iterator[Orthanc]:
    """Start Orthanc with its default policies, durable storage and no Nagle delay.

    Parameters
    ----------
    folder : pathlib.Path
        For its storage; made if it is missing.
    ae_title : str
        Its title.
    **settings
        Further keys of its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    orthanc = Orthanc(free_port(), free_port())
    values = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": ae_title,
        "DicomPort": orthanc.dicom_port,
        "HttpPort": orthanc.http_port,
        "MaximumPduLength": 131_072,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "Plugins": [],
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(values), encoding="utf-8")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["Orthanc", folder / "orthanc.json"], stdout=log, stderr=log, env=os.environ | {"TCP_NODELAY": "1"}
        )
    try:
        _await(orthanc, process)
        yield orthanc
    finally:
        process.terminate()
        process.wait(timeout=60)


def _await(orthanc: Orthanc, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            orthanc.get("/system")
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
