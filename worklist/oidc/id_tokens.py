"""Is an ID token to be believed? (OpenID Connect Core 1.0, 3.1.3.7)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwk import ECKey, JWKRegistry, KeySet, OKPKey, RSAKey

from worklist import passwords
from worklist.oidc.errors import LoginRefused, Refusal

# Signatures by a private key only. With HS256 whoever knows the public key could sign, with none anybody.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
# How far clocks may be apart, and how old a token may be that was made for us a moment ago.
SKEW_SECONDS = 60
OLDEST_SECONDS = 600
_LONGEST = 64_000
_LONGEST_HEADER = 8_192  # some providers put their certificate into it


class UnknownKey(Exception):
    """No key at hand made this signature: perhaps the provider has changed its keys."""


def public_keys(document: object) -> KeySet:
    """The keys of a JWKS document that may sign; others are passed over (RFC 7517 5)."""
    entries = document.get("keys") if isinstance(document, Mapping) else None
    keys = [_public_key(entry) for entry in entries] if isinstance(entries, Sequence) else []
    return KeySet([key for key in keys if key is not None])


def _public_key(entry: Any) -> RSAKey | ECKey | OKPKey | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    try:
        # Symmetric keys have no place in a public document.
        key = JWKRegistry.import_key(entry)
    except (JoseError, ValueError, TypeError):
        return None
    return key if isinstance(key, RSAKey | ECKey | OKPKey) else None


def check(token: str, keys: KeySet, *, issuer: str, client_id: str, nonce: str, now: int) -> dict[str, Any]:
    """The claims of an ID token that is to be believed.

    Parameters
    ----------
    token : str
        As the token endpoint gave it.
    keys : joserfc.jwk.KeySet
        Of the provider.
    issuer, client_id, nonce : str
        What it must name.
    now : int
        Seconds since 1970.

    Returns
    -------
    dict
        All claims; `iss`, `sub`, `aud`, `exp`, `iat` and `nonce` were checked.

    Raises
    ------
    UnknownKey
        If none of the keys made the signature.
    LoginRefused
        For every other fault.
    """
    claims = _verified(token, keys)
    registry = jwt.JWTClaimsRegistry(
        now=now,
        leeway=SKEW_SECONDS,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True},
    )
    try:
        registry.validate(claims)
    except (ExpiredTokenError, InvalidClaimError, MissingClaimError) as error:
        raise _refused(error.description or error.error) from error
    _check_parties(claims, client_id)
    if not (isinstance(claims["nonce"], str) and passwords.is_same(claims["nonce"], nonce)):
        raise _refused("nonce")
    if claims["iat"] < now - OLDEST_SECONDS - SKEW_SECONDS:
        raise _refused("issued too long ago")
    # Core 1.0, 2: at most 255 ASCII characters, case sensitive.
    if not (claims["sub"].isascii() and claims["sub"].isprintable() and 1 <= len(claims["sub"]) <= 255):
        raise _refused("sub")
    return claims


def _verified(token: str, keys: KeySet) -> dict[str, Any]:
    if len(token) > _LONGEST:
        raise _refused("too long")
    registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    registry.max_header_length = _LONGEST_HEADER
    try:
        header = jws.extract_compact(token.encode(), registry=registry).headers()
    except (JoseError, ValueError) as error:
        raise _refused("is no signed token") from error
    if header.get("alg") not in ALGORITHMS:
        raise _refused("algorithm")
    for key in _candidates(keys, header.get("kid")):
        try:
            return jwt.decode(token, key, algorithms=ALGORITHMS, registry=registry).claims
        except (JoseError, ValueError, TypeError):
            continue  # another key, or one of another kind than the algorithm's
    raise UnknownKey


def _candidates(keys: KeySet, kid: object) -> list[Any]:
    """Those of that name; without a name all of them."""
    return [key for key in keys if kid is None or key.kid == kid]


def _check_parties(claims: Mapping[str, Any], client_id: str) -> None:
    """Made for others as well: then it must say that it was given to us."""
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    given_to = claims.get("azp", client_id if len(audiences) == 1 else None)
    if given_to != client_id:
        raise _refused("azp")


def _refused(detail: str) -> LoginRefused:
    return LoginRefused(Refusal.TOKEN, f"ID token: {detail}")
