"""Files that survive a power cut: temporary file, fsync, rename, fsync of the folder."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from clearfilm.crashpoints import crash_point
from clearfilm.errors import StorageError

TEMPORARY_SUFFIX = ".part"


def opaque_path(folder: Path, suffix: str) -> Path:
    """A new random name below `folder`; nothing received ever becomes part of a path.

    Parameters
    ----------
    folder : pathlib.Path
        The root of this kind of file.
    suffix : str
        With the dot.

    Returns
    -------
    pathlib.Path
        ``folder/ab/ab….suffix``; the sub-folder may not exist yet.
    """
    name = secrets.token_hex(16)
    return folder / name[:2] / (name + suffix)


def write_durably(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a new file so that it is whole or absent after a crash at any moment.

    Parameters
    ----------
    path : pathlib.Path
        Must not exist yet; parent folders are made.
    chunks : iterable of bytes
        The content, in order.

    Raises
    ------
    StorageError
        If the disk refused; nothing is left behind.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        _make_folder(path.parent)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write_all(descriptor, chunks)
            crash_point("written-before-fsync")
            # A failed fsync is never tried again: Linux may have dropped the pages.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        crash_point("fsynced-before-rename")
        temporary.rename(path)
        _fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write below {path.parent}: {error.strerror}") from error
    crash_point("renamed-before-commit")


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_all(descriptor: int, chunks: Iterable[bytes | memoryview]) -> None:
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
            crash_point("middle-of-file")


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
