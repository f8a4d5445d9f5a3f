"""The blind share: tagged studies that nobody sees as such, chosen so that nobody can guess which."""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

from clearfilm.errors import StartupError
from clearfilm.files import write_durably

KEY_FILE: Final = "policy.key"
_KEY_BYTES: Final = 32


def read_key(data_folder: Path) -> bytes:
    """The installation's key; made at the first call.

    Parameters
    ----------
    data_folder : pathlib.Path
        Keep `policy.key` in its backup: with another key a study that is concluded again may be shown.

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
    path = data_folder / KEY_FILE
    if not path.exists():
        write_durably(path, [secrets.token_bytes(_KEY_BYTES)])
    try:
        key = path.read_bytes()
    except OSError as error:
        raise StartupError(f"the key {path} cannot be read ({error.strerror})") from error
    if not key:
        raise StartupError(f"the key {path} is empty; restore it from a backup")
    return key


def in_share(study_instance_uid: str, key: bytes, share: float) -> bool:
    """Whether a study is drawn; the same answer for every revision of it.

    Parameters
    ----------
    study_instance_uid : str
    key : bytes
    share : float
        0 to 1. A larger share holds every study of a smaller one.
    """
    digest = hmac.new(key, f"clearfilm blind\0{study_instance_uid}".encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share
