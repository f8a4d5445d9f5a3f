"""The door: front page, login, logout, first administrator, and what everybody may set for themselves."""

from functools import partial
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Form
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from clearfilm import metrics
from clearfilm.errors import UsageError
from db import accounts, audit
from db.accounts import Purpose, Role
from worklist import logins, passwords
from worklist.access import EVERYBODY, allow, cookie_name
from worklist.answers import Problem
from worklist.page import Page, PageMaker, safe_path
from worklist.rooms import sign_on, studies
from worklist.rooms.door import (
    TOO_MANY,
    end_login,
    known_cookie,
    login_page,
    provider_name,
    set_cookie,
    set_known_cookie,
    with_form_cookie,
)
from worklist.templates import N_

room = APIRouter()

_STALE_LINK = N_("This link was used already, or is too old. A restart of the node prints another one.")
NameField = Annotated[str, Form(max_length=64)]
PasswordField = Annotated[str, Form(max_length=1024)]
NextField = Annotated[str, Form(max_length=2048)]


@room.get("/")
@allow(*EVERYBODY)
def front(page: Page) -> Response:
    """To the page that the user's role begins with."""
    return page.go(studies.front_page(page.visit))


@room.get("/login")
@allow(anybody=True)
def show_login(page: Page, next: str = "/", ended: bool = False) -> Response:  # noqa: A002 - name in the address
    """The login page."""
    if page.visit.login is not None:
        return page.go(safe_path(next))
    return login_page(page, next, words=page.say("Your login has ended.") if ended else None)


@room.post("/login")
@allow(anybody=True)
async def log_in(page: Page, name: NameField, password: PasswordField, next: NextField = "/") -> Response:  # noqa: A002
    """Check name and password; the answers to all failures look and take the same."""
    check = partial(_log_in, page, name, password, next)
    return await anyio.to_thread.run_sync(check, limiter=page.services.password_checks)


@room.post("/logout")
@allow(*EVERYBODY)
async def log_out(page: Page) -> Response:
    """End this login; a user of the provider goes on to log out there."""
    login = page.visit.login
    assert login is not None
    await run_in_threadpool(end_login, page)
    target = None if login.is_local else await sign_on.logout_url(page, login)
    if target is None:
        answer: Response = page.go("/login")
    else:
        # A page in between: form-action of the Content-Security-Policy also forbids forms to be sent on elsewhere.
        words = page.say("You are logged out here. Going on to {provider} …", provider=provider_name(page))
        answer = page.render("onward.html", title=page.say("Logged out"), words=words, target=target)
    answer.delete_cookie(cookie_name(page.request), secure=page.is_secure, httponly=True, samesite="strict")
    return answer


@room.get("/first")
@allow(anybody=True)
def show_first(page: Page, token: str = "") -> Response:
    """The page that makes the first administrator."""
    return _first_page(page, token)


@room.post("/first")
@allow(anybody=True)
def make_first(
    page: Page, token: NameField, name: NameField, password: PasswordField, again: PasswordField
) -> Response:
    """Make the first administrator; the link is good once."""
    database = page.services.database
    _require_first(page, token)  # before anything that costs
    if password != again:
        return _first_page(page, token, words=page.say("The two passwords differ."), status=400)
    try:
        checked = passwords.check_name(name)
        password_hash = passwords.hash_password(password, name=checked)
    except UsageError as error:
        return _first_page(page, token, words=page.say(str(error)), status=400)
    with database.begin() as session:
        now = database.now(session)
        good = accounts.take_token(session, Purpose.FIRST_ADMIN, passwords.token_hash(token), now=now)
        if not good or not accounts.is_empty(session):
            raise Problem(403, _STALE_LINK)
        user = accounts.add_user(session, checked, Role.ADMIN, password_hash, now=now)
        audit.record(session, "first administrator made", actor=checked, now=now, address=page.visit.address)
    return _enter(page, user, "/")


def _log_in(page: PageMaker, name: str, password: str, path: str) -> Response:
    database, address = page.services.database, page.visit.address
    with database.read() as session:
        user = accounts.user(session, name)
        browser = logins.known_browser(session, user, known_cookie(page))
        wait = logins.waiting_seconds(session, name, address, now=database.now(session), browser=browser)
    if wait > 0:
        metrics.LOGINS.labels("blocked").inc()
        if page.services.denials.admit(address) is not None:
            _record_failure(page, name, "too many tries")
        words = page.say(TOO_MANY, seconds=int(wait) + 1)
        answer = login_page(page, path, words=words, status=429)
        answer.headers["Retry-After"] = str(int(wait) + 1)
        return answer
    good = passwords.verify(password, user.password_hash if user else None)
    if user is None or not good or user.disabled_at is not None:
        return _refuse(page, name, path, "name or password wrong", browser)
    if not logins.may_use_password(user, page.services.config.worklist):
        return _refuse(page, name, path, "passwords are for administrators", browser)
    return _enter(page, user, safe_path(path), browser)


def _refuse(page: PageMaker, name: str, path: str, reason: str, browser: str | None) -> Response:
    """The same answer to all failures, so that nobody learns which names exist."""
    metrics.LOGINS.labels("wrong").inc()
    database = page.services.database
    with database.begin() as session:
        logins.count_failure(session, name, page.visit.address, now=database.now(session), browser=browser)
    _record_failure(page, name, reason)
    words = page.say("Name or password is wrong.")
    if page.services.config.worklist.oidc.local_logins == "admins":
        words += " " + page.say("Passwords are for administrators here; everybody else logs in without one.")
    return login_page(page, path, words=words, status=401)


def _enter(page: PageMaker, user: accounts.User, path: str, browser: str | None = None) -> Response:
    metrics.LOGINS.labels("ok").inc()
    end_login(page)  # if there is one: its cookie is about to be replaced
    database, address = page.services.database, page.visit.address
    token = logins.log_in(database, user, address, limits=page.services.limits, browser=browser)
    with database.begin() as session:
        known = logins.remember_browser(session, user, known_cookie(page), now=database.now(session))
    answer = page.go(path)
    set_cookie(page, answer, cookie_name(page.request), token)
    set_known_cookie(page, answer, known)
    return answer


def _first_page(page: PageMaker, token: str, *, words: str | None = None, status: int = 200) -> Response:
    _require_first(page, token)
    return with_form_cookie(page, "first.html", status, words=words, token=token)


def _require_first(page: PageMaker, token: str) -> None:
    """The link is good, or this was one more failure, and is recorded like one."""
    database, address = page.services.database, page.visit.address
    with database.read() as session:
        now = database.now(session)
        good = accounts.has_token(session, Purpose.FIRST_ADMIN, passwords.token_hash(token), now=now)
    if good:
        return
    passed_over = page.services.denials.admit(address)
    if passed_over is not None:
        with database.begin() as session:
            audit.record(
                session,
                "login failed",
                actor="unknown name",
                now=database.now(session),
                reason="link of the first administrator",
                address=address,
                denials_not_recorded=passed_over,
            )
    raise Problem(403, _STALE_LINK)


def _record_failure(page: PageMaker, name: str, reason: str) -> None:
    database = page.services.database
    with database.begin() as session:
        known = accounts.user(session, name)
        audit.record(
            session,
            "login failed",
            actor=known.name if known else "unknown name",
            now=database.now(session),
            reason=reason,
            address=page.visit.address,
        )
