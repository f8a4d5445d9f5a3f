"""What the rooms of the door share: the login page, and cookies."""

from dataclasses import replace
from urllib.parse import quote

from fastapi.responses import Response

from clearfilm.counts import NN_
from db import accounts
from worklist import passwords
from worklist.access import form_cookie_name
from worklist.page import PageMaker, safe_path

_KNOWN_SECONDS = 180 * 86_400
TOO_MANY = NN_(
    "Too many failed logins. Try again in {seconds} second.",
    "Too many failed logins. Try again in {seconds} seconds.",
    by="seconds",
)


def login_page(page: PageMaker, path: str, *, words: str | None, status: int = 200) -> Response:
    """The login page, with a way back to `path`."""
    way_back = safe_path(path)
    section, provider = page.services.config.worklist.oidc, page.services.provider
    return with_form_cookie(
        page,
        "login.html",
        status,
        words=words,
        next=way_back,
        # Of this page, whatever address failed: changing the language must not try that again.
        path=f"/login?next={quote(way_back, safe='')}",
        # By the address that the provider knows: the cookie of the way there is of no use under another name.
        provider_link=f"{section.public_url}/login/oidc?next={quote(way_back, safe='')}" if provider else None,
        provider=provider_name(page),
        is_away=provider is not None and provider.is_away,
        for_admins=section.local_logins == "admins",
    )


def provider_name(page: PageMaker) -> str:
    """What users call the provider."""
    return page.services.config.worklist.oidc.label or page.say("single sign-on")


def with_form_cookie(page: PageMaker, template: str, status: int, **values: object) -> Response:
    """A page with a form for somebody without a login: its form token belongs to a fresh cookie."""
    token = passwords.new_token()
    page = replace(page, visit=replace(page.visit, form_token=passwords.form_token(token)))
    answer = page.render(template, status, **values)
    set_cookie(page, answer, form_cookie_name(page.request), token)
    return answer


def end_login(page: PageMaker) -> None:
    """The visitor's login, if there is one, is over."""
    if page.visit.login is None:
        return
    with page.services.database.begin() as session:
        accounts.end_login(session, page.visit.login.login_id)
        page.record(session, "logged out")


def known_cookie(page: PageMaker) -> str:
    """What tells a browser in which somebody has logged in before; empty: nobody has."""
    return page.request.cookies.get(_known_cookie_name(page), "")


def set_known_cookie(page: PageMaker, answer: Response, value: str) -> None:
    """It opens nothing: failures are counted by it."""
    set_cookie(page, answer, _known_cookie_name(page), value, max_age=_KNOWN_SECONDS)


def _known_cookie_name(page: PageMaker) -> str:
    return "__Host-clearfilm-known" if page.is_secure else "clearfilm-known"


def set_cookie(page: PageMaker, answer: Response, name: str, token: str, *, max_age: int | None = None) -> None:
    """Out of reach of scripts, and sent by our own pages only; without `max_age` until the browser is closed."""
    answer.set_cookie(
        name,
        token,
        secure=page.is_secure,
        httponly=True,
        samesite="strict",
        path="/",
        max_age=max_age,
    )
