"""The blind share: tagged studies that nobody sees as such, chosen so that nobody can guess which."""

import hashlib
import hmac
from typing import Final

# In the data folder; with another key a study that is concluded again may be shown.
KEY_FILE: Final = "policy.key"


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
