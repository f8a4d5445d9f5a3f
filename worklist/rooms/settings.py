"""What each user may set: language, theme, zone, password."""

from typing import Annotated
from zoneinfo import available_timezones

from fastapi import APIRouter, Form
from fastapi.responses import Response

from clearfilm.errors import UsageError
from db import accounts
from worklist import logins, passwords
from worklist.access import EVERYBODY, allow
from worklist.answers import Problem
from worklist.page import Page, PageMaker, safe_path
from worklist.rooms.door import TOO_MANY, known_cookie
from worklist.templates import LANGUAGES, N_

room = APIRouter(prefix="/settings")

_YEAR = 365 * 86_400
WordField = Annotated[str, Form(max_length=64)]
PasswordField = Annotated[str, Form(max_length=1024)]
NextField = Annotated[str, Form(max_length=2048)]


@room.get("")
@allow(*EVERYBODY)
def show(page: Page) -> Response:
    """The user's own settings."""
    return _settings_page(page)


@room.post("/language")
@allow(anybody=True)
def set_language(page: Page, language: WordField, next: NextField = "/") -> Response:  # noqa: A002
    """Change the language and come back to the same page."""
    if language not in LANGUAGES:
        raise Problem(422, N_("There is no such language."))
    _keep(page, "language", language)
    answer = page.go(safe_path(next))
    answer.set_cookie("language", language, max_age=_YEAR, secure=page.is_secure, samesite="strict")
    return answer


@room.post("/theme")
@allow(*EVERYBODY)
def set_theme(page: Page, theme: WordField, next: NextField = "/") -> Response:  # noqa: A002
    """Dark or light, kept for this user."""
    if theme not in ("dark", "light"):
        raise Problem(422, N_("There is no such theme."))
    _keep(page, "theme", theme)
    return page.go(safe_path(next))


@room.post("/zone")
@allow(*EVERYBODY)
def set_zone(page: Page, zone: Annotated[str, Form(max_length=64)] = "") -> Response:
    """A zone of one's own, or the browser's."""
    if zone and zone not in available_timezones():
        raise Problem(422, N_("There is no such time zone."))
    _keep(page, "zone", zone)
    return page.go("/settings")


@room.post("/password")
@allow(*EVERYBODY)
def set_password(page: Page, present: PasswordField, password: PasswordField, again: PasswordField) -> Response:
    """Another password; all other logins of this user end."""
    login = page.visit.login
    assert login is not None
    if not login.is_local:
        raise Problem(409, N_("You log in at the provider of logins: change your password there."))
    database = page.services.database
    address = page.visit.address
    with database.read() as session:
        user = session.get_one(accounts.User, login.user_id)
        browser = logins.known_browser(session, user, known_cookie(page))
        wait = logins.waiting_seconds(session, login.name, address, now=database.now(session), browser=browser)
    if wait > 0:
        raise Problem(429, TOO_MANY, seconds=int(wait) + 1)
    if not passwords.verify(present, user.password_hash):
        # Somebody at a workstation that was left may try.
        with database.begin() as session:
            logins.count_failure(session, login.name, address, now=database.now(session), browser=browser)
            page.record(session, "present password wrong", user_id=login.user_id)
        return _settings_page(page, words=page.say(N_("The present password is wrong.")), status=400)
    if password != again:
        return _settings_page(page, words=page.say(N_("The two passwords differ.")), status=400)
    try:
        password_hash = passwords.hash_password(password, name=login.name)
    except UsageError as error:
        return _settings_page(page, words=page.say(str(error)), status=400)
    with database.begin() as session:
        session.get_one(accounts.User, login.user_id).password_hash = password_hash
        accounts.end_logins(session, login.user_id, but=login.login_id)
        page.record(session, "password changed", user_id=login.user_id)
    return page.go("/settings")


def _settings_page(page: PageMaker, *, words: str | None = None, status: int = 200) -> Response:
    assert page.visit.login is not None
    zones = sorted(name for name in available_timezones() if "/" in name or name == "UTC")
    chosen = page.visit.login.settings.get("zone")
    return page.render("settings.html", status, words=words, zones=zones, chosen=chosen)


def _keep(page: PageMaker, key: str, value: str) -> None:
    if page.visit.login is None:
        return
    with page.services.database.begin() as session:
        user = session.get_one(accounts.User, page.visit.login.user_id)
        user.settings = {**user.settings, key: value}
