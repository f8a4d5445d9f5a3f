"""Films, configurations and listeners for the tests of the listener."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from clearfilm.config import Config, Disk, Listener, Node, Sender, Study
from db import schema
from db.session import Database
from storescp.main import RunningListener
from tests.integration.raw_peer import DX

SHORT = Listener(
    association_timeout_seconds=0.6,
    pdu_timeout_seconds=0.6,
    idle_timeout_seconds=0.6,
    maximum_object_megabytes=4,
    maximum_connections=12,
    maximum_connections_per_address=6,
)
PATIENT = Listener(maximum_connections=12, maximum_connections_per_address=6)
MODALITY = Sender(name="room 1", ae_title="MODALITY", addresses=("127.0.0.1",))
SCANNER = Sender(name="scanner", ae_title="SCANNER", addresses=("127.0.0.1",), secondary_capture=True)


def film(instance: str = "1.2.3.4", *, size: int = 64, **changes: Any) -> bytes:
    """An encoded DX data set, explicit little endian."""
    ds = Dataset()
    ds.SOPClassUID = DX
    ds.SOPInstanceUID = instance
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = "1.2.3.1"
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "4711"
    ds.Rows = ds.Columns = size
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 0
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = bytes(size * size * 2)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, ds)
    return stream.getvalue()


def configuration(folder: Path, **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "data_folder": folder / "data",
        "node": Node(port=0),
        "senders": (MODALITY, SCANNER),
        "listener": PATIENT,
        "disk": Disk(low_water_percent=0, low_water_gigabytes=0),
        "study": Study(quiet_seconds=1),
    }
    return Config(**settings | changes)


@functools.cache
def _empty_database() -> bytes:
    """A prepared database; making the tables takes longer than most of these tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clearfilm.sqlite"
        database = Database(f"sqlite:///{path}")
        schema.prepare(database)
        database.checkpoint()
        database.close()
        return path.read_bytes()


@contextmanager
def listening(config: Config, *, busy_timeout_seconds: float = 15.0) -> Iterator[RunningListener]:
    path = config.data_folder / "clearfilm.sqlite"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_empty_database())
    database = Database(config.database_url, busy_timeout_seconds=busy_timeout_seconds)
    listener = RunningListener(config, database)
    try:
        yield listener
    finally:
        assert listener.stop(), "an association did not end"


def stored_files(config: Config) -> list[Path]:
    """Every file below the films' folder, temporary ones too."""
    return [path for path in (config.data_folder / "films").rglob("*") if path.is_file()]
