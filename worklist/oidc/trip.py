"""One way of a browser to the provider and back.

The browser keeps one random value in a cookie. What the provider and the address bar get to see (state, nonce, the
hash of the verifier) is derived from it one way: an answer fits only the browser, and the try, that asked for it.
Nothing is stored here, so strangers cannot fill anything.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from worklist import passwords

LONGEST_SECONDS = 600
_LONGEST_PATH = 1024


@dataclass(frozen=True)
class Trip:
    """What belongs to one try to log in.

    Parameters
    ----------
    value : str
        Secret value of the cookie.
    began_at : int
        Seconds since 1970.
    path : str
        Where the person wanted to go; not checked.
    """

    value: str
    began_at: int
    path: str

    @classmethod
    def begin(cls, path: str, *, now: int) -> Trip:
        """A new one."""
        kept = path if len(path) <= _LONGEST_PATH else "/"
        encoded = base64.urlsafe_b64encode(kept.encode()).decode()
        return cls(f"{now}.{passwords.new_token()}.{encoded}", now, kept)

    @classmethod
    def of_cookie(cls, value: str, *, now: int) -> Trip | None:
        """The one of a cookie; None: there is none, or it took too long."""
        began_at, _, rest = value.partition(".")
        _, _, encoded = rest.partition(".")
        if not (began_at.isascii() and began_at.isdigit() and len(began_at) < 12):
            return None
        if not 0 <= now - int(began_at) <= LONGEST_SECONDS:
            return None
        try:
            path = base64.urlsafe_b64decode(encoded).decode()
        except ValueError:
            return None
        return cls(value, int(began_at), path)

    @property
    def state(self) -> str:
        """Comes back with the browser."""
        return self._derive("state")

    @property
    def nonce(self) -> str:
        """Comes back in the ID token."""
        return self._derive("nonce")

    @property
    def verifier(self) -> str:
        """Goes to the provider with the code: 43 characters (RFC 7636 4.1)."""
        return self._derive("verifier")

    @property
    def challenge(self) -> str:
        """S256 of the verifier (RFC 7636 4.2)."""
        return _encode(hashlib.sha256(self.verifier.encode()).digest())

    def _derive(self, purpose: str) -> str:
        return _encode(hashlib.sha256(f"oidc {purpose}\0{self.value}".encode()).digest())


def _encode(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
