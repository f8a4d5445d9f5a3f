"""Who may: one dependency of the whole application, which denies whatever was not declared.

Each route says with `allow` who may call it; the application does not start while one does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRouter
from starlette.concurrency import run_in_threadpool

from clearfilm.errors import StartupError
from db import accounts, audit
from db.accounts import LoggedIn, Role
from worklist import passwords
from worklist.services import NodeServices, Services
from worklist.templates import LANGUAGES

logger = logging.getLogger(__name__)

EVERYBODY = frozenset(Role)
READERS = frozenset({Role.READER, Role.RADIOLOGIST, Role.ADMIN})
RADIOLOGISTS = frozenset({Role.RADIOLOGIST})
ADMINS = frozenset({Role.ADMIN})
AUDITORS = frozenset({Role.AUDITOR, Role.ADMIN})

_SAFE = frozenset({"GET", "HEAD"})
# A login is marked as used at most this often, and only by requests of a person.
_TOUCH = timedelta(minutes=1)
_DECLARED = "clearfilm_allowed"
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Denied(Exception):
    """A request that is not answered; it has been recorded. `reason` is one of those below."""

    NO_LOGIN, EXPIRED, ROLE, FORM = "no login", "login ended", "role", "form token"
    # Not yet a denial: a link on another site was followed, for which browsers keep our cookie back (SameSite=Strict).
    ELSEWHERE = "link on another site"

    def __init__(self, reason: str, visit: Visit) -> None:
        super().__init__(reason)
        self.reason = reason
        self.visit = visit


@dataclass(frozen=True)
class Visit:
    """Who asks, and how the answer should look."""

    login: LoggedIn | None
    address: str
    form_token: str  # goes with every change that the page offers
    language: str
    theme: str | None  # None: as the browser prefers
    zone: str | None

    @property
    def role(self) -> Role | None:
        """None: nobody is logged in."""
        return self.login.role if self.login else None

    @property
    def actor(self) -> str:
        """Name for the audit trail."""
        return self.login.name if self.login else f"nobody at {self.address}"


def allow(*roles: Role, anybody: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Declare who may call a route: these roles, or really anybody, without a login."""
    if bool(roles) is anybody:
        raise ValueError("name roles, or say anybody=True")

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, None if anybody else frozenset(roles))
        return endpoint

    return declare


def declared(endpoint: Callable[..., Any]) -> frozenset[Role] | None:
    """The roles of a route; None: open to anybody. Raises StartupError if nothing was declared."""
    try:
        found: frozenset[Role] | None = getattr(endpoint, _DECLARED)
    except AttributeError:
        raise StartupError(f"nobody declared who may call {getattr(endpoint, '__qualname__', endpoint)}") from None
    return found


def include(app: FastAPI, room: APIRouter) -> None:
    """Add the routes of a room. Raises StartupError if one of them does not say who may."""
    for route in room.routes:
        declared(route.endpoint)  # type: ignore[attr-defined]
    app.include_router(room)


async def guard(request: Request, services: NodeServices) -> Visit:
    """Let through who may; the dependency of every route.

    Raises
    ------
    Denied
        Without the right login, or a change without the token of its page; written to the audit trail.
    """
    roles = declared(request.scope["endpoint"])
    visit = await run_in_threadpool(visit_of, request, services)
    reason = _objection(request, visit, roles)
    if reason is None and request.method not in _SAFE and not await _has_form_token(request, visit):
        reason = Denied.FORM
    if reason is not None:
        if reason != Denied.ELSEWHERE:
            await run_in_threadpool(_record_denial, request, services, visit, reason)
        raise Denied(reason, visit)
    return visit


CurrentVisit = Annotated[Visit, Depends(guard)]


def visit_of(request: Request, services: Services) -> Visit:
    """Who asks, by the cookie; touches the login if a person did something."""
    token = request.cookies.get(cookie_name(request), "")
    login = _find_login(request, services, token) if token else None
    if login is None:
        token = request.cookies.get(form_cookie_name(request), "")
    settings = login.settings if login else {}
    wanted = settings.get("language") or request.cookies.get("language", "")
    return Visit(
        login=login,
        # What a proxy says may be anything.
        address=request.client.host[:64] if request.client else "",
        form_token=passwords.form_token(token),
        language=wanted if wanted in LANGUAGES else services.config.worklist.language,
        theme=settings.get("theme"),
        zone=settings.get("zone") or request.cookies.get("zone"),
    )


def cookie_name(request: Request) -> str:
    """`__Host-` where the connection is encrypted: no other host may set or read it."""
    return "__Host-clearfilm" if request.url.scheme == "https" else "clearfilm"


def form_cookie_name(request: Request) -> str:
    """Of the cookie that binds the forms of those who are not logged in to their browser.

    One of its own: a page that was reached from another site comes without the login's cookie (SameSite=Strict),
    and must not replace it. `__Host-` as above: who could plant it could make the token that goes with it.
    """
    return "__Host-clearfilm-form" if request.url.scheme == "https" else "clearfilm-form"


def _find_login(request: Request, services: Services, token: str) -> LoggedIn | None:
    with services.database.read() as session:
        now = services.database.now(session)
        login = accounts.find_login(session, passwords.token_hash(token), limits=services.limits, now=now)
    if login is not None and _is_by_a_person(request) and now - login.seen_at >= _TOUCH:
        with services.database.begin() as session:
            accounts.touch_login(session, login.login_id, now=now)
    return login


def _is_by_a_person(request: Request) -> bool:
    """Pages tell with requests that they make by themselves how long nobody has touched them."""
    idle = request.headers.get("x-idle-seconds", "0")
    return not idle.isdecimal() or int(idle[:9]) < _TOUCH.total_seconds()


def _objection(request: Request, visit: Visit, roles: frozenset[Role] | None) -> str | None:
    if roles is None:
        return None
    if visit.role is None:
        if cookie_name(request) in request.cookies:
            return Denied.EXPIRED
        return Denied.ELSEWHERE if _is_followed_link(request) else Denied.NO_LOGIN
    return None if visit.role in roles else Denied.ROLE


def _is_followed_link(request: Request) -> bool:
    site, mode = request.headers.get("sec-fetch-site"), request.headers.get("sec-fetch-mode")
    return request.method == "GET" and site in ("cross-site", "same-site") and mode == "navigate"


async def _has_form_token(request: Request, visit: Visit) -> bool:
    """The page's token came with the change, from our own page."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    if visit.login is None and form_cookie_name(request) not in request.cookies:
        return False
    sent = request.headers.get("x-form-token")
    if sent is None:
        field = (await request.form()).get("form_token")
        sent = field if isinstance(field, str) else ""
    return passwords.is_same(sent, visit.form_token)


def _record_denial(request: Request, services: Services, visit: Visit, reason: str) -> None:
    passed_over = 0 if visit.login else services.denials.admit(visit.address)
    if passed_over is None:
        return
    with services.database.begin() as session:
        audit.record(
            session,
            "page denied",
            actor=visit.actor,
            now=services.database.now(session),
            reason=reason,
            route=route_name(request),
            address=visit.address,
            denials_not_recorded=passed_over,
        )


def route_name(request: Request) -> str:
    """The path with the names of its parameters: values may be anything that somebody typed."""
    return f"{request.method} {getattr(request.scope.get('route'), 'path', '(no such page)')}"
