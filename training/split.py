"""Which part of a cohort a patient belongs to, for ever.

A keyed hash of the patient: films that are added later never move anybody, so every retrained model meets the
same test patients, and nobody without the key can tell who they are.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from typing import Final, Literal

Part = Literal["train", "stop", "calibrate", "test", "temporal"]
Scheme = Literal["patient", "paper"]
# In the data folder; without it a later cohort has other test patients.
KEY_FILE: Final = "split.key"
# Upper ends: 70, 10, 10 and 10 %.
_ENDS: Final[tuple[tuple[Part, float], ...]] = (("train", 0.7), ("stop", 0.8), ("calibrate", 0.9), ("test", 1.0))
_PSEUDONYM_DIGITS = 24


def person(patient_id: str) -> str:
    """A patient ID in one spelling: modalities differ in blanks, case and width, and a person is in one part only.

    Two persons that come to one name so are in the same part, which does no harm.
    """
    plain = "".join(sign if sign.isprintable() else " " for sign in unicodedata.normalize("NFKC", patient_id))
    return " ".join(plain.split()).upper()


def key_id(key: bytes) -> str:
    """A name for a key that does not give it away."""
    return hashlib.sha256(b"clearfilm split key " + key).hexdigest()[:16]


def part_of(identity: str, key: bytes) -> Part:
    """The part of a patient, or of a film for the paper's random split.

    Parameters
    ----------
    identity : str
        `person` of the patient ID; the film's SHA-256 for `Scheme` "paper".
    key : bytes

    Returns
    -------
    str
        "train" (70 %), "stop", "calibrate" or "test" (10 % each).
    """
    digest = hmac.new(key, identity.encode(), hashlib.sha256).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return next((name for name, end in _ENDS if place < end), "test")


def pseudonym(identity: str, key: bytes, *, purpose: str = "patient") -> str:
    """A name that stands for a patient or film and cannot be turned back without the key.

    Parameters
    ----------
    identity : str
    key : bytes
    purpose : str
        The same identity has unrelated pseudonyms for different purposes.

    Returns
    -------
    str
        24 hexadecimal digits.
    """
    digest = hmac.new(key, f"clearfilm {purpose}\0{identity}".encode(), hashlib.sha256)
    return digest.hexdigest()[:_PSEUDONYM_DIGITS]
