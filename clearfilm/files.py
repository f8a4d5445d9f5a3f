"""Files that survive a power cut: temporary file, fsync, rename, fsync of the folder."""

import ctypes
import fcntl
import functools
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clearfilm.crashpoints import crash_point
from clearfilm.errors import StorageError

TEMPORARY_SUFFIX = ".part"
_WRITE_BACK_BYTES = 1 << 20
_SYNC_FILE_RANGE_WRITE = 2


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


class DurableFile:
    """A new file, written piece by piece, that is whole under its name or absent after a crash.

    Until `close` the file is locked, so that a sweep in another process knows that it is in use.

    Parameters
    ----------
    path : pathlib.Path
        Must not exist yet; parent folders are made.

    Raises
    ------
    StorageError
        By every method if the disk refuses; `discard` then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = f"{path}{TEMPORARY_SUFFIX}"
        self._descriptor = -1
        self._size = self._handed_over = 0
        with self._storage_errors():
            _make_folder(path.parent)
            self._create_locked()

    def _create_locked(self) -> None:
        """Between making the file and locking it a sweep may have removed it: then make it again."""
        self._descriptor = _create(self._temporary)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        while os.fstat(self._descriptor).st_nlink == 0:
            os.close(self._descriptor)
            self._descriptor = _create(self._temporary)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def fileno(self) -> int:
        """The open descriptor, for reading back what was written."""
        return self._descriptor

    def write(self, chunk: bytes | memoryview) -> None:
        """Append bytes."""
        with self._storage_errors():
            rest = memoryview(chunk)
            while rest:
                count = os.write(self._descriptor, rest)
                self._size += count
                rest = rest[count:]
                crash_point("middle-of-file")
        if self._size - self._handed_over >= _WRITE_BACK_BYTES:
            _start_write_back(self._descriptor, self._handed_over, self._size - self._handed_over)
            self._handed_over = self._size

    def publish(self) -> None:
        """Give the file its name; it is durable then."""
        crash_point("written-before-fsync")
        with self._storage_errors():
            # A failed fsync is never tried again: Linux may have dropped the pages.
            os.fsync(self._descriptor)
            crash_point("fsynced-before-rename")
            os.rename(self._temporary, self.path)  # noqa: PTH104 - a third of the time, for every film
            fsync_folder(self.path.parent)
        crash_point("renamed-before-commit")

    def discard(self) -> None:
        """Remove the file under either name."""
        for path in (self._temporary, self.path):
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - one of them is a string
        self.close()

    def close(self) -> None:
        """Unlock the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"cannot write below {self.path.parent}: {error.strerror}") from error


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
    file = DurableFile(path)
    try:
        for chunk in chunks:
            file.write(chunk)
        file.publish()
    except BaseException:
        file.discard()
        raise
    file.close()


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _start_write_back(descriptor: int, offset: int, length: int) -> None:
    """Let the disk begin while more is coming, so that the fsync at the end is short."""
    function = _sync_file_range()
    if function is not None:
        function(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux only
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


def _create(path: str) -> int:
    """A new file; what a killed process has left under its name makes room, what a living one holds does not."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        with open(path, "rb") as left:  # noqa: PTH123 - a string, as everywhere here
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)  # noqa: PTH108
    return os.open(path, flags, 0o600)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
