"""Passwords (argon2id) and random tokens, of which only hashes are kept."""

import hashlib
import secrets
import threading
import unicodedata
from functools import cache

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from clearfilm.errors import UsageError
from worklist.templates import N_

SHORTEST, LONGEST = 10, 128
# More than OWASP's minimum (19 MiB, 2 passes); more memory would not fit beside several logins at once.
_HASHER = PasswordHasher(time_cost=3, memory_cost=19_456, parallelism=1, type=Type.ID)
# Each takes 19 MiB: a crowd of logins waits instead of filling the memory.
_ONE_AT_A_TIME = threading.Lock()


def check_name(name: str) -> str:
    """The name as it is kept. Raises UsageError if it is none."""
    name = name.strip().lower()
    if not 1 <= len(name) <= 64 or not all(c.isalnum() or c in "._-@" for c in name):
        raise UsageError(N_("A name has 1 to 64 letters, digits or . _ - @"))
    return name


def hash_password(password: str, *, name: str) -> str:
    """The argon2id hash of a new password.

    Raises
    ------
    UsageError
        If the password is too short, too long, or the user's name.
    """
    password = unicodedata.normalize("NFC", password)
    if not SHORTEST <= len(password) <= LONGEST:
        raise UsageError(N_("A password has 10 to 128 characters."))
    if password.strip().lower() == name.strip().lower() or len(set(password)) < 4:
        raise UsageError(N_("This password is too easy to guess."))
    with _ONE_AT_A_TIME:
        return _HASHER.hash(password)


def verify(password: str, password_hash: str | None) -> bool:
    """Whether the password is the one of the hash; takes as long when there is no hash."""
    password = unicodedata.normalize("NFC", password)[:LONGEST]
    try:
        with _ONE_AT_A_TIME:
            _HASHER.verify(password_hash or _nobody(), password)
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


def new_token() -> str:
    """A random token for cookies and links: 256 bits, safe in URLs."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is kept of a token; a token has so much chance in it that a plain hash suffices."""
    return hashlib.sha256(token.encode()).hexdigest()


def form_token(token: str) -> str:
    """The CSRF token of pages that are shown to the holder of the cookie `token`."""
    return hashlib.sha256(b"form\0" + token.encode()).hexdigest()


def is_same(one: str, other: str) -> bool:
    """Compare two secrets without telling by the time how much of them agrees."""
    return secrets.compare_digest(one.encode(), other.encode())


@cache
def _nobody() -> str:
    """A hash that no password has, with the same parameters as real ones; made at the first need, as it costs."""
    return _HASHER.hash(secrets.token_urlsafe(32))
