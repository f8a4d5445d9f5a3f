"""The pass at start that makes files and rows agree, and reports each repair."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from sqlalchemy import select

from clearfilm.dicom import header
from clearfilm.errors import ClearfilmError
from clearfilm.files import TEMPORARY_SUFFIX
from db import audit, intake
from db.intake import Outcome
from db.models import Instance, InstanceState
from db.session import Database
from storescp.storage import FILMS, RECORDED, SUFFIX, Origin, file_prefix, received_film

logger = logging.getLogger(__name__)

LOST = "the stored file is missing"
RECOVERED = "(recovered)"
"""Sender of a film whose file was found without a row."""


def reconcile(data_folder: Path, database: Database, *, quiet: timedelta, stop: threading.Event) -> int:
    """Remove unfinished files, record films without rows, mark rows without files.

    A film without a row was durable, but never acknowledged, or its row is newer than a restored backup:
    keeping it is right in both cases. Files that another process is writing are locked, and left alone.

    Parameters
    ----------
    data_folder : pathlib.Path
    database : Database
    quiet : datetime.timedelta
        See `db.intake.record`.
    stop : threading.Event
        Ends the pass early.

    Returns
    -------
    int
        Number of repairs.
    """
    films = data_folder / FILMS
    films.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _exclusive(films) as mine:
        if not mine:
            return 0
        repairs = 0
        # One folder at a time: the memory does not grow with the archive.
        for number in range(256):
            if stop.is_set():
                break
            folder = films / f"{number:02x}"
            names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
            repairs += _reconcile_folder(data_folder, folder, names, database, quiet)
        return repairs


def _reconcile_folder(data_folder: Path, folder: Path, names: set[str], database: Database, quiet: timedelta) -> int:
    prefix = folder.relative_to(data_folder).as_posix() + "/"
    statement = select(Instance.path).where(Instance.path >= prefix, Instance.path < prefix + "g")
    with database.read() as session:
        recorded = {path.removeprefix(prefix) for path in session.scalars(statement)}
    repairs = 0
    for name in names:
        if name.endswith(TEMPORARY_SUFFIX):
            repairs += _remove_unfinished(folder / name)
        elif name.endswith(SUFFIX) and name not in recorded:
            repairs += _record(data_folder, folder / name, database, quiet)
    for name in recorded - names:
        repairs += _mark_lost(data_folder, prefix + name, database)
    return repairs


def _remove_unfinished(path: Path) -> bool:
    with suppress(FileNotFoundError), _exclusive(path) as unused:
        if unused:
            path.unlink()
            logger.warning("repair: unfinished file removed", extra={"file": path.name})
            return True
    return False


def _record(data_folder: Path, path: Path, database: Database, quiet: timedelta) -> bool:
    relative = path.relative_to(data_folder).as_posix()
    try:
        with _exclusive(path) as unused:
            if not unused:
                return False
            with database.begin() as session:
                if session.scalars(select(Instance.id).where(Instance.path == relative)).first() is not None:
                    return False
                film = _read(path, relative)
                outcome = intake.record(session, film, now=datetime.now(UTC), quiet=quiet)
            if outcome is Outcome.DUPLICATE:
                path.unlink()
    except FileNotFoundError:
        return False
    except (ClearfilmError, OSError, ValueError) as error:
        logger.error("film without a row is unreadable", extra={"file": path.name, "reason": str(error)})
        return False
    logger.warning("repair: film without a row", extra={"file": path.name, "outcome": outcome.value})
    return True


def _read(path: Path, relative: str) -> intake.ReceivedFilm:
    """What is to be recorded of a film whose file is all that is left."""
    meta = read_file_meta_info(path)
    origin = Origin(
        sender=RECOVERED,
        calling_ae_title=str(meta.get("SourceApplicationEntityTitle", "")),
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
    )
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        data = content[len(file_prefix(origin)) :]
    scanned = header.scan(data, origin.transfer_syntax_uid)
    attributes = header.parse(data[: scanned.header_bytes], origin.transfer_syntax_uid, RECORDED)
    digest = hashlib.sha256(data).hexdigest()
    return received_film(scanned, attributes, origin, digest=digest, size=len(data), path=relative)


def _mark_lost(data_folder: Path, relative: str, database: Database) -> bool:
    with database.begin() as session:
        instance = session.scalars(select(Instance).where(Instance.path == relative)).one_or_none()
        if instance is None or instance.reason == LOST or (data_folder / relative).exists():
            return False
        instance.state = InstanceState.FAILED
        instance.reason = LOST
        audit.record(
            session,
            "stored film lost",
            actor="storescp",
            now=datetime.now(UTC),
            study_id=instance.study_id,
            instance_id=instance.id,
        )
    logger.error("repair: row without a file, marked as failed", extra={"file": relative})
    return True


@contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    """Whether no other process has the file or folder locked; it is ours inside the block then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
