"""Keys of an installation: random bytes in a file of the data folder, made once and kept for ever."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from clearfilm.errors import StartupError, StorageError
from clearfilm.files import fsync_folder, write_durably

_BYTES: Final = 32


def installation_key(path: Path) -> bytes:
    """The key in a file; made at the first call. Of several processes that make it at once one wins, for all.

    Parameters
    ----------
    path : pathlib.Path
        Belongs into the data folder's backup: nothing can make the same key again.

    Returns
    -------
    bytes

    Raises
    ------
    StartupError
        If the file is empty or cannot be read.
    StorageError
        If it cannot be written.
    """
    if not path.exists():
        _make(path)
    return read_key(path)


def read_key(path: Path) -> bytes:
    """A key that somebody else has made. Raises StartupError."""
    try:
        key = path.read_bytes()
    except OSError as error:
        raise StartupError(f"the key {path} cannot be read ({error.strerror})") from error
    if not key:
        raise StartupError(f"the key {path} is empty; restore it from a backup")
    return key


def _make(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_durably(draft, [secrets.token_bytes(_BYTES)])
    try:
        with suppress(FileExistsError):
            os.link(draft, path)  # unlike a rename it never takes the place of another one's key
            fsync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
