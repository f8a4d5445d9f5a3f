"""File meta information of our own, and the disk guard."""

import errno
import fcntl
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import dcmread

from clearfilm.config import Disk
from clearfilm.errors import OutOfSpace
from clearfilm.files import DurableFile
from storescp.storage import DiskGuard, Origin, file_prefix


@pytest.mark.parametrize("title", ["ODD", "EVEN"])
def test_file_prefix_is_part_10(title: str) -> None:
    prefix = file_prefix(Origin("room", title, "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.45", "1.2.840.10008.1.2.1"))
    assert prefix[:132] == bytes(128) + b"DICM"
    meta = dcmread(BytesIO(prefix)).file_meta
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.45"
    assert meta.SourceApplicationEntityTitle == title
    assert len(prefix) == 132 + 12 + meta.FileMetaInformationGroupLength


def test_guard_without_marks_takes_films(tmp_path: Path) -> None:
    guard = DiskGuard(tmp_path, Disk(low_water_percent=0, low_water_gigabytes=0))
    guard.require_space()
    assert not guard.is_critical


@pytest.mark.parametrize(
    "marks",
    [
        Disk(low_water_percent=0, low_water_gigabytes=1e6),
        Disk(low_water_percent=90, low_water_gigabytes=1e6),
    ],
)
def test_larger_mark_counts(tmp_path: Path, marks: Disk) -> None:
    guard = DiskGuard(tmp_path, marks)
    with pytest.raises(OutOfSpace, match="low-water mark"):
        guard.require_space()
    assert not guard.is_critical, "associations go on while a gigabyte is free"


def test_disk_that_fails_is_not_trusted_again(tmp_path: Path) -> None:
    guard = DiskGuard(tmp_path, Disk(low_water_percent=0, low_water_gigabytes=0))
    guard.report(OSError(errno.ENOSPC, "No space left on device"))
    guard.require_space()
    guard.report(OSError(errno.EIO, "Input/output error"))
    with pytest.raises(OutOfSpace, match="failed"):
        guard.require_space()
    assert guard.is_critical


def test_sweep_between_making_and_locking_a_file_costs_no_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[Path] = []

    def lock(descriptor: int, operation: int) -> None:
        if not swept:
            (unfinished,) = tmp_path.glob("film*")
            unfinished.unlink()
            swept.append(unfinished)
        fcntl.flock(descriptor, operation)

    monkeypatch.setattr(
        "clearfilm.files.fcntl", SimpleNamespace(flock=lock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB)
    )
    file = DurableFile(tmp_path / "film.dcm")
    file.write(b"bytes")
    file.publish()
    file.close()
    assert swept
    assert (tmp_path / "film.dcm").read_bytes() == b"bytes"
