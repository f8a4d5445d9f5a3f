"""From fragments on a socket to a durable file and committed rows."""

from __future__ import annotations

import errno
import hashlib
import logging
import mmap
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from clearfilm.config import Disk
from clearfilm.crashpoints import crash_point
from clearfilm.dicom import header
from clearfilm.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from clearfilm.errors import OutOfSpace
from clearfilm.files import DurableFile, fsync_folder, opaque_path
from db.intake import ReceivedFilm, StudyAttributes

logger = logging.getLogger(__name__)

FILMS = "films"
SUFFIX = ".dcm"
RECORDED = frozenset(
    {
        "patient_name",
        "patient_id",
        "patient_birth_date",
        "patient_sex",
        "accession_number",
        "study_date",
        "study_time",
        "study_description",
        "requested_procedure_priority",
        "study_priority_id",
        "series_description",
        "patient_age",
        "view_position",
        "current_patient_location",
        "institutional_department_name",
        "requesting_service",
    }
)
"""The attributes that the listener reads: those which the database keeps, and the mark of own results."""
_CRITICAL_BYTES = 1 << 30
_GUARD_SECONDS = 1.0
_ELEMENT = Struct("<HH2sH")
_ELEMENT_LONG = Struct("<HH2sxxI")


class DiskGuard:
    """Watches the free space below a folder; a look is good for a second.

    Parameters
    ----------
    folder : pathlib.Path
        On the volume in question.
    marks : clearfilm.config.Disk
        The larger of the two counts.
    """

    def __init__(self, folder: Path, marks: Disk) -> None:
        self._folder = folder
        self._marks = marks
        self._lock = threading.Lock()
        self._looked_at = -_GUARD_SECONDS
        self._free = 0
        self._mark = 0.0
        self._suspect = False

    def require_space(self) -> None:
        """Raise OutOfSpace below the mark, or when the volume has failed."""
        self._look()
        if self._suspect:
            raise OutOfSpace("the disk failed to store a film; see the log")
        if self._free < self._mark:
            raise OutOfSpace("free disk space is below the low-water mark")

    @property
    def is_critical(self) -> bool:
        """Whether so little is left that not even an association is worth beginning.

        What was accepted must still find room for its rows and results. Above that, films are refused
        one by one (0xA700), so that the sender learns why.
        """
        self._look()
        return self._suspect or self._free < min(self._mark / 4, _CRITICAL_BYTES)

    def report(self, error: OSError) -> None:
        """Take note of a failed write. After an input/output error the volume cannot be trusted."""
        if error.errno == errno.EIO:
            self._suspect = True
            logger.critical("the disk failed; no film is taken until a restart", extra={"error": str(error)})

    def _look(self) -> None:
        with self._lock:
            if time.monotonic() - self._looked_at < _GUARD_SECONDS:
                return
            usage = shutil.disk_usage(self._folder)
            marks = self._marks
            self._mark = max(usage.total * marks.low_water_percent / 100, marks.low_water_gigabytes * 1e9)
            self._free = usage.free
            self._looked_at = time.monotonic()


@dataclass(frozen=True)
class Origin:
    """Where a film comes from and what its C-STORE command says."""

    sender: str
    calling_ae_title: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class IncomingFilm:
    """A film being received: its bytes go to a temporary file and a digest, and nowhere else.

    Parameters
    ----------
    data_folder : pathlib.Path
    origin : Origin

    Raises
    ------
    StorageError
        By every method if the disk refuses.
    """

    def __init__(self, data_folder: Path, origin: Origin) -> None:
        crash_point("before-first-byte")
        self.origin = origin
        self.size = 0
        self._data_folder = data_folder
        self._digest = hashlib.sha256()
        self._file = DurableFile(opaque_path(data_folder / FILMS, SUFFIX))
        self._prefix = file_prefix(origin)
        self._file.write(self._prefix)

    def append(self, fragment: memoryview) -> None:
        """Take the next bytes of the data set."""
        self._file.write(fragment)
        self._digest.update(fragment)
        self.size += len(fragment)

    def examine(self) -> tuple[header.ScannedObject, header.FilmHeader]:
        """Scan what was received, then read its attributes. Raises RefusedObject."""
        content = memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
        data = content[len(self._prefix) :]
        scanned = header.scan(data, self.origin.transfer_syntax_uid)
        head = data[: scanned.header_bytes]
        return scanned, header.parse(head, self.origin.transfer_syntax_uid, RECORDED)

    def publish(self, scanned: header.ScannedObject, attributes: header.FilmHeader) -> ReceivedFilm:
        """Make the file durable; what is to be recorded of it."""
        self._file.publish()
        return received_film(
            scanned,
            attributes,
            self.origin,
            digest=self._digest.hexdigest(),
            size=self.size,
            path=self._file.path.relative_to(self._data_folder).as_posix(),
        )

    def keep(self) -> None:
        """The film is recorded; sweeps may look at its file."""
        self._file.close()

    def move(self, path: Path) -> None:
        """Give the published file another name, in the place of a lost one."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file.path.rename(path)
        fsync_folder(path.parent)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._file.discard()


def received_film(
    scanned: header.ScannedObject,
    attributes: header.FilmHeader,
    origin: Origin,
    *,
    digest: str,
    size: int,
    path: str,
) -> ReceivedFilm:
    """Put together what the database keeps of a film; empty attributes become null."""
    return ReceivedFilm(
        study=StudyAttributes(
            study_instance_uid=scanned.study_instance_uid,
            patient_name=attributes.patient_name or None,
            patient_id=attributes.patient_id or None,
            patient_birth_date=attributes.patient_birth_date or None,
            patient_sex=attributes.patient_sex or None,
            accession_number=attributes.accession_number or None,
            study_date=attributes.study_date or None,
            study_time=attributes.study_time or None,
            study_description=attributes.study_description or None,
            ordered_priority=attributes.requested_procedure_priority or attributes.study_priority_id or None,
            patient_age=attributes.patient_age or None,
            location=attributes.current_patient_location
            or attributes.institutional_department_name
            or attributes.requesting_service
            or None,
        ),
        sop_instance_uid=scanned.sop_instance_uid,
        sop_class_uid=scanned.sop_class_uid,
        series_instance_uid=scanned.series_instance_uid,
        transfer_syntax_uid=origin.transfer_syntax_uid,
        digest=digest,
        size=size,
        path=path,
        sender=origin.sender,
        calling_ae_title=origin.calling_ae_title,
        view_position=attributes.view_position or None,
    )


def file_prefix(origin: Origin) -> bytes:
    """Zero preamble, DICM, and our own file meta information (PS3.10 7.1), explicit little endian."""
    elements = b"".join(
        [
            _ELEMENT_LONG.pack(0x0002, 0x0001, b"OB", 2) + b"\0\1",
            _short(0x0002, b"UI", origin.sop_class_uid),
            _short(0x0003, b"UI", origin.sop_instance_uid),
            _short(0x0010, b"UI", origin.transfer_syntax_uid),
            _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _short(0x0016, b"AE", origin.calling_ae_title),
        ]
    )
    group_length = _ELEMENT.pack(0x0002, 0x0000, b"UL", 4) + len(elements).to_bytes(4, "little")
    return bytes(128) + b"DICM" + group_length + elements


def _short(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return _ELEMENT.pack(0x0002, element, vr, len(value)) + value
