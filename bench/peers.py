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
    process : subprocess.Popen
        Its process.
    dicom_port, http_port : int
        On 127.0.0.1.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", dicom_port: int, http_port: int) -> None:
        self.process = process
        self.dicom_port = dicom_port
        self.http_port = http_port

    def get(self, path: str) -> Any:
        """A resource of its REST interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def instances(self) -> int:
        """Number of stored objects."""
        return int(self.get("/statistics")["CountInstances"])

    def series(self, study_instance_uid: str) -> list[dict[str, Any]]:
        """Modality and instances of each series of a study."""
        found = [study for study in self._all("studies") if _tag(study, "StudyInstanceUID") == study_instance_uid]
        return [
            {"Modality": _tag(series, "Modality"), "Instances": series["Instances"]}
            for study in found
            for series in map(self._series, study["Series"])
        ]

    def _all(self, kind: str) -> list[dict[str, Any]]:
        return list(self.get(f"/{kind}?expand"))

    def _series(self, name: str) -> dict[str, Any]:
        return dict(self.get(f"/series/{name}"))


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
    values = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": ae_title,
        "DicomPort": free_port(),
        "HttpPort": free_port(),
        "MaximumPduLength": 131_072,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "Plugins": [],
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(values), encoding="utf-8")
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            ["Orthanc", folder / "orthanc.json"], stdout=log, stderr=log, env=os.environ | {"TCP_NODELAY": "1"}
        )
    try:
        orthanc = Orthanc(process, values["DicomPort"], values["HttpPort"])
        _await(orthanc)
        yield orthanc
    finally:
        process.terminate()
        process.wait(timeout=60)


def _await(orthanc: Orthanc) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            orthanc.get("/system")
        except OSError:
            if orthanc.process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _tag(resource: dict[str, Any], name: str) -> str:
    return str(resource["MainDicomTags"].get(name, ""))
