"""The ID token that logging out at the provider wants back, kept so that the database alone does not show it."""

import hashlib

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

_HEADER = {"alg": "dir", "enc": "A256GCM"}
_ALGORITHMS = list(_HEADER.values())
_LONGEST = 16_384


def seal(id_token: str, cookie: str) -> str | None:
    """Encrypted with the value of the login's cookie, of which only a hash is kept; None: too long to be kept."""
    return jwe.encrypt_compact(_HEADER, id_token, _key(cookie), _ALGORITHMS) if len(id_token) <= _LONGEST else None


def unseal(sealed: str, cookie: str) -> str | None:
    """The token; None: it was sealed with another cookie."""
    try:
        text = jwe.decrypt_compact(sealed, _key(cookie), _ALGORITHMS).plaintext
    except (JoseError, ValueError):
        return None
    return text.decode() if text is not None else None


def _key(cookie: str) -> OctKey:
    return OctKey.import_key(hashlib.sha256(b"seal\0" + cookie.encode()).digest())
