"""The door to the provider: to it, back from it, and out again (OpenID Connect)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from clearfilm import metrics
from db import audit
from db.accounts import LoggedIn
from worklist import logins, passwords
from worklist.access import allow, cookie_name
from worklist.answers import Problem
from worklist.oidc.errors import LoginRefused, ProviderAway, Refusal
from worklist.oidc.trip import LONGEST_SECONDS, Trip
from worklist.page import Page, PageMaker, safe_path
from worklist.rooms.door import end_login, login_page, provider_name, set_cookie
from worklist.templates import N_

if TYPE_CHECKING:
    from worklist.oidc.provider import Arrival, Provider

room = APIRouter(prefix="/login/oidc")

RETRY_SECONDS = 10
_AGAIN = N_("This login was begun too long ago, or in another browser. Begin again.")
_UNTRUSTED = N_(
    "The answer of {provider} is not to be trusted. Try again; if that does not help, tell an administrator."
)
_WORDS = {
    Refusal.PROVIDER: N_("You were not let in by {provider}."),
    Refusal.TRIP: _AGAIN,
    Refusal.CODE: _AGAIN,
    Refusal.TOKEN: _UNTRUSTED,
    Refusal.NAME: N_("There is no name for you that can be used here. Ask an administrator."),
    Refusal.GROUPS_LEFT_OUT: N_(
        "Your groups were left out because there are too many of them. Ask an administrator to have fewer sent."
    ),
    Refusal.NO_ROLE: N_("Your login was right, but you are in no group that may use this node. Ask an administrator."),
    Refusal.NAME_TAKEN: N_("There is another user of your name at this node. Ask an administrator."),
    Refusal.DISABLED: N_("You may not use this node any more. Ask an administrator."),
}


@room.get("")
@allow(anybody=True)
async def leave(page: Page, next: str = "/") -> Response:  # noqa: A002 - name in the address
    """To the provider."""
    provider = _provider(page)
    if page.visit.login is not None:
        return page.go(safe_path(next))
    trip = Trip.begin(safe_path(next), now=int(time.time()))
    try:
        target = await provider.authorization_url(trip)
    except ProviderAway:
        return _away(page, next)
    answer = page.go(target)
    answer.set_cookie(
        _cookie_name(page),
        trip.value,
        max_age=LONGEST_SECONDS,
        secure=page.is_secure,
        httponly=True,
        # Lax, unlike all others: it is needed by a page that another site leads to.
        samesite="lax",
        path="/",
    )
    return answer


@room.get("/callback")
@allow(anybody=True)
async def come_back(page: Page, state: str = "", code: str = "", error: str = "", iss: str | None = None) -> Response:
    """From the provider; everything in the address may be made up."""
    provider = _provider(page)
    trip = Trip.of_cookie(page.request.cookies.get(_cookie_name(page), ""), now=int(time.time()))
    path = trip.path if trip else "/"
    try:
        arrival = await _receive(provider, trip, state=state, code=code, error=error, issuer=iss)
        answer = await run_in_threadpool(_let_in, page, arrival, safe_path(path))
    except ProviderAway:
        answer = _away(page, path)
    except LoginRefused as refused:
        await run_in_threadpool(_record_refusal, page, refused)
        words = page.say(_WORDS[refused.refusal], provider=provider_name(page))
        answer = login_page(page, path, words=words, status=403)
    # Good for one try.
    answer.delete_cookie(_cookie_name(page), secure=page.is_secure, httponly=True, samesite="lax")
    return answer


async def logout_url(page: PageMaker, login: LoggedIn) -> str | None:
    """Where to log out at the provider; None: nowhere."""
    provider = page.services.provider
    if provider is None:
        return None
    from worklist.oidc.sealing import unseal

    cookie = page.request.cookies.get(cookie_name(page.request), "")
    return await provider.logout_url(unseal(login.id_token, cookie) if login.id_token else None)


async def _receive(
    provider: Provider, trip: Trip | None, *, state: str, code: str, error: str, issuer: str | None
) -> Arrival:
    if trip is None or not passwords.is_same(state, trip.state):
        raise LoginRefused(Refusal.TRIP)
    if error:
        from worklist.oidc.provider import refused_by_provider

        raise refused_by_provider(error)
    return await provider.receive(trip, code=code, issuer=issuer)


def _let_in(page: PageMaker, arrival: Arrival, path: str) -> Response:
    from worklist.oidc.sealing import seal

    database, address = page.services.database, page.visit.address
    user = logins.admit(database, arrival.person, address)
    end_login(page)
    token = passwords.new_token()
    id_token = seal(arrival.id_token, token)
    logins.log_in(database, user, address, limits=page.services.limits, token=token, id_token=id_token)
    metrics.LOGINS.labels("ok").inc()
    # A page of ours in between: browsers keep a SameSite=Strict cookie back while another site leads them.
    title = page.say("Logged in")
    answer = page.render("onward.html", title=title, words=page.say("You are logged in."), target=path)
    set_cookie(page, answer, cookie_name(page.request), token)
    return answer


def _away(page: PageMaker, path: str) -> Response:
    metrics.LOGINS.labels("provider away").inc()
    words = page.say("There is no answer from {provider}. Try again in a moment.", provider=provider_name(page))
    answer = login_page(page, path, words=words, status=503)
    answer.headers["Retry-After"] = str(RETRY_SECONDS)
    return answer


def _record_refusal(page: PageMaker, refused: LoginRefused) -> None:
    metrics.LOGINS.labels("refused").inc()
    passed_over = page.services.denials.admit(page.visit.address)
    if passed_over is None:
        return
    database = page.services.database
    with database.begin() as session:
        audit.record(
            session,
            "login failed",
            actor=refused.actor,
            now=database.now(session),
            reason=refused.refusal.value,
            detail=refused.detail,
            provider=page.services.config.worklist.oidc.issuer,
            address=page.visit.address,
            denials_not_recorded=passed_over,
        )


def _provider(page: PageMaker) -> Provider:
    found = page.services.provider
    if found is None:
        raise Problem(404, N_("There is no such page."))
    return found


def _cookie_name(page: PageMaker) -> str:
    """`__Host-`: no neighbouring host can plant one."""
    return "__Host-clearfilm-oidc" if page.is_secure else "clearfilm-oidc"
