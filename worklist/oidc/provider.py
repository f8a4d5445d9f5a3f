"""The provider of logins: what it offers (OpenID Connect Discovery 1.0), who came back from it, how to log out there.

Everything here is asynchronous, because a slow provider must hold neither threads nor database connections.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx2
from joserfc.jwk import KeySet

from clearfilm.errors import StartupError
from clearfilm.oidc_settings import Oidc, is_private_enough
from worklist.oidc import claims, id_tokens
from worklist.oidc.claims import Person
from worklist.oidc.errors import LoginRefused, ProviderAway, Refusal
from worklist.oidc.trip import Trip

logger = logging.getLogger(__name__)

# What it offers, and its keys, are asked for again after this time.
KEEP_SECONDS = 3600
# A failure is told on the login page for so long, unless the provider answers before.
TELL_SECONDS = 60
# Logins that may be on their way at once: a crowd waits here instead of at the provider.
_AT_ONCE = 8
_MOST_BYTES = 1_000_000
_LONGEST_CODE = 2048
_LONGEST_URL = 8000
_WELL_KNOWN = "/.well-known/openid-configuration"
# RFC 6749 4.1.2.1 and 5.2, Core 1.0 3.1.2.6: what may stand in the log; anything else was made up by somebody.
_ERRORS = frozenset(
    {
        "access_denied",
        "account_selection_required",
        "consent_required",
        "interaction_required",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "login_required",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
    }
)


@dataclass(frozen=True)
class _Offer:
    """What we need of the discovery document."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    end_session_endpoint: str | None
    takes_basic: bool  # client_secret_basic; otherwise client_secret_post
    names_itself: bool  # in the answer to the browser (RFC 9207)


@dataclass(frozen=True)
class Arrival:
    """Somebody who came back."""

    person: Person
    id_token: str  # for logging out there


class Provider:
    """The provider of the configuration.

    Parameters
    ----------
    section : Oidc
        With an issuer.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    StartupError
        If the file of the secret or of the authority cannot be used. Whether the provider answers is found out
        when somebody logs in.
    """

    def __init__(self, section: Oidc, clock: Callable[[], float] = time.monotonic) -> None:
        self.section = section
        self._clock = clock
        self._secret = _read_secret(section)
        self._trust = _trust(section)
        self._lock = asyncio.Lock()
        self._crowd = asyncio.Semaphore(_AT_ONCE)
        self._offer: _Offer | None = None
        self._keys: KeySet | None = None
        self._asked_at = 0.0
        self._failed_at: float | None = None

    @property
    def is_away(self) -> bool:
        """Whether it failed lately, and did not answer since."""
        return self._failed_at is not None and self._clock() - self._failed_at < TELL_SECONDS

    async def check(self) -> str:
        """Try what a login needs before anybody logs in; what was found. Raises ProviderAway."""
        offer = await self._offered()
        await self._public_keys(offer)
        leave = "yes" if offer.end_session_endpoint else "no"
        return f"answers; logging out there: {leave}"

    async def authorization_url(self, trip: Trip) -> str:
        """Where to send the browser. Raises ProviderAway."""
        offer = await self._offered()
        values = {
            "response_type": "code",
            "client_id": self.section.client_id,
            "redirect_uri": self.section.redirect_uri,
            "scope": " ".join(self.section.scopes),
            "state": trip.state,
            "nonce": trip.nonce,
            "code_challenge": trip.challenge,
            "code_challenge_method": "S256",
        }
        if self.section.prompt is not None:
            values["prompt"] = self.section.prompt
        return _with_query(offer.authorization_endpoint, values)

    async def receive(self, trip: Trip, *, code: str, issuer: str | None) -> Arrival:
        """Find out who came back.

        Parameters
        ----------
        trip : Trip
            Whose state came back as well.
        code : str
            Authorization code, as the browser brought it.
        issuer : str or None
            As the browser brought it, if it did (RFC 9207).

        Raises
        ------
        LoginRefused
            If the provider does not take the code, or its answer is not to be trusted.
        ProviderAway
            If it does not answer.
        """
        offer = await self._offered()
        if (issuer is None and offer.names_itself) or issuer not in (None, self.section.issuer):
            raise LoginRefused(Refusal.TOKEN, "issuer of the answer")
        if not 1 <= len(code) <= _LONGEST_CODE:
            raise LoginRefused(Refusal.CODE)
        async with self._crowd:
            tokens = await self._redeem(offer, code, trip)
            id_token = tokens.get("id_token")
            if not isinstance(id_token, str):
                raise LoginRefused(Refusal.TOKEN, "no ID token")
            found = await self._checked(offer, id_token, trip)
            if not claims.has(found, self.section) and offer.userinfo_endpoint:
                found = {**await self._user_info(offer.userinfo_endpoint, tokens, found["sub"]), **found}
        return Arrival(claims.person(found, self.section), id_token)

    async def logout_url(self, id_token: str | None) -> str | None:
        """Where to log out there (RP-Initiated Logout 1.0); None: it does not offer that, or does not answer."""
        try:
            offer = await self._offered()
        except ProviderAway:
            return None
        if offer.end_session_endpoint is None or not self.section.log_out_at_provider:
            return None
        values = {
            "client_id": self.section.client_id,
            "post_logout_redirect_uri": f"{self.section.public_url}/login",
        }
        url = _with_query(offer.end_session_endpoint, values | ({"id_token_hint": id_token} if id_token else {}))
        # Without the hint the provider asks whether to log out.
        return url if len(url) <= _LONGEST_URL else _with_query(offer.end_session_endpoint, values)

    async def _offered(self) -> _Offer:
        """The discovery document; several at once ask for it together."""
        began = self._clock()
        async with self._lock:
            if self._offer is not None and self._clock() - self._asked_at < KEEP_SECONDS:
                return self._offer
            if self._failed_at is not None and self._failed_at >= began:
                raise ProviderAway("it did not answer a moment ago")
            assert self.section.issuer is not None
            document = await self._get(self.section.issuer.rstrip("/") + _WELL_KNOWN)
            try:
                self._offer = _offer(document, self.section.issuer)
            except ProviderAway as error:
                self._fail(error)
                raise
            self._asked_at, self._keys = self._clock(), None
            return self._offer

    async def _public_keys(self, offer: _Offer, *, anew: bool = False) -> KeySet:
        if self._keys is None or anew:
            self._keys = id_tokens.public_keys(await self._get(offer.jwks_uri))
        return self._keys

    async def _checked(self, offer: _Offer, id_token: str, trip: Trip) -> dict[str, Any]:
        """The claims; a signature by an unknown key has the keys asked for once more, as they change now and then."""
        for anew in (False, True):
            keys = await self._public_keys(offer, anew=anew)
            try:
                return id_tokens.check(
                    id_token,
                    keys,
                    issuer=self.section.issuer or "",
                    client_id=self.section.client_id or "",
                    nonce=trip.nonce,
                    now=int(time.time()),
                )
            except id_tokens.UnknownKey:
                continue
        raise LoginRefused(Refusal.TOKEN, "ID token: signature")

    async def _redeem(self, offer: _Offer, code: str, trip: Trip) -> Mapping[str, Any]:
        data = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.section.redirect_uri,
            "code_verifier": trip.verifier,
        }
        client_id = self.section.client_id or ""
        auth = None
        if self._secret is not None and offer.takes_basic:
            # RFC 6749 2.3.1: encoded as in a form before they become user and password.
            auth = httpx2.BasicAuth(quote_plus(client_id), quote_plus(self._secret))
        else:
            data |= {"client_id": client_id} | ({"client_secret": self._secret} if self._secret else {})
        status, answer = await self._ask("POST", offer.token_endpoint, data=data, auth=auth)
        if status == 200 and isinstance(answer, Mapping):
            return answer
        error = _known(answer.get("error")) if isinstance(answer, Mapping) else "other"
        logger.warning("login provider did not take the code", extra={"status": status, "error": error})
        raise LoginRefused(Refusal.CODE, error)

    async def _user_info(self, url: str, tokens: Mapping[str, Any], subject: str) -> Mapping[str, Any]:
        """Claims that are not in the ID token. Core 1.0, 5.3.4: they may be somebody else's."""
        access_token = tokens.get("access_token")
        if not isinstance(access_token, str) or not re.fullmatch(r"[!-~]{1,64000}", access_token):
            return {}
        status, answer = await self._ask("GET", url, headers={"authorization": f"Bearer {access_token}"})
        if status != 200 or not isinstance(answer, Mapping):
            return {}
        if answer.get("sub") != subject:
            raise LoginRefused(Refusal.TOKEN, "user info of somebody else")
        return answer

    async def _get(self, url: str) -> object:
        """A document that anybody may read."""
        status, answer = await self._ask("GET", url)
        if status != 200:
            raise self._fail(ProviderAway(f"{url} answers {status}"))
        return answer

    async def _ask(self, method: str, url: str, **options: Any) -> tuple[int, object]:
        """Status and JSON, None if there is none; within the time and size that are allowed. Follows no redirects."""
        try:
            async with asyncio.timeout(self.section.timeout_seconds):
                status, body = await self._exchange(method, url, **options)
        except TimeoutError as error:
            raise self._fail(ProviderAway(f"{url} did not answer in {self.section.timeout_seconds:g} s")) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise self._fail(ProviderAway(f"{url} cannot be reached: {error or type(error).__name__}")) from error
        if status >= 500:
            raise self._fail(ProviderAway(f"{url} answers {status}"))
        self._failed_at = None
        try:
            return status, json.loads(body)
        except (ValueError, RecursionError):
            return status, None

    async def _exchange(self, method: str, url: str, **options: Any) -> tuple[int, bytes]:
        headers = {"accept": "application/json", "accept-encoding": "identity", **options.pop("headers", {})}
        async with (
            httpx2.AsyncClient(verify=self._trust, timeout=self.section.timeout_seconds) as client,
            client.stream(method, url, headers=headers, **options) as answer,
        ):
            body = bytearray()
            # Raw: nothing may swell up here.
            async for part in answer.aiter_raw():
                body += part
                if len(body) > _MOST_BYTES:
                    raise httpx2.DecodingError("the answer is too long")
            return answer.status_code, bytes(body)

    def _fail(self, error: ProviderAway) -> ProviderAway:
        self._failed_at = self._clock()
        logger.warning("login provider cannot be used", extra={"reason": str(error)})
        return error


def refused_by_provider(error: str) -> LoginRefused:
    """What the browser brought instead of a code."""
    return LoginRefused(Refusal.PROVIDER, _known(error))


def _known(error: object) -> str:
    return error if isinstance(error, str) and error in _ERRORS else "other"


def _with_query(url: str, values: Mapping[str, object]) -> str:
    return url + ("&" if "?" in url else "?") + urlencode(values)


def _offer(document: object, issuer: str) -> _Offer:
    """Raises ProviderAway if the document is none of this issuer (Discovery 1.0, 4.3)."""
    if not isinstance(document, Mapping):
        raise ProviderAway("its discovery document is no JSON object")
    if document.get("issuer") != issuer:
        named = document.get("issuer")
        raise ProviderAway(f"it calls itself {str(named)[:255]!r}: set worklist.oidc.issuer to that, if it is right")
    methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return _Offer(
        authorization_endpoint=_endpoint(document, "authorization_endpoint"),
        token_endpoint=_endpoint(document, "token_endpoint"),
        jwks_uri=_endpoint(document, "jwks_uri"),
        userinfo_endpoint=_optional(document, "userinfo_endpoint"),
        end_session_endpoint=_optional(document, "end_session_endpoint"),
        takes_basic="client_secret_basic" in methods or "client_secret_post" not in methods,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _endpoint(document: Mapping[str, Any], name: str) -> str:
    url = document.get(name)
    if not (isinstance(url, str) and re.fullmatch(r"[!-~]{1,2000}", url) and _is_safe(url)):
        raise ProviderAway(f"its discovery document has no usable {name}")
    return url


def _optional(document: Mapping[str, Any], name: str) -> str | None:
    return _endpoint(document, name) if document.get(name) is not None else None


def _is_safe(url: str) -> bool:
    try:
        return is_private_enough(url)
    except ValueError:
        return False


def _read_secret(section: Oidc) -> str | None:
    path = section.client_secret_file
    if path is None:
        return None
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no text"
        raise StartupError(f"worklist.oidc.client_secret_file: {path} cannot be read: {why}") from error
    if not secret:
        raise StartupError(f"worklist.oidc.client_secret_file: {path} is empty")
    if path.stat().st_mode & 0o007:
        raise StartupError(f"worklist.oidc.client_secret_file: every user may open {path}; chmod 600 {path}")
    return secret


def _trust(section: Oidc) -> ssl.SSLContext:
    if section.ca_file is None:
        return httpx2.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=section.ca_file)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or "has no certificate in PEM form"
        raise StartupError(f"worklist.oidc.ca_file: {section.ca_file} cannot be used: {why}") from error
