"""Users: who may log in, and as what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import Response
from sqlalchemy.orm import Session

from clearfilm.errors import UsageError
from db import accounts
from db.accounts import Role, User
from worklist import passwords
from worklist.access import ADMINS, allow
from worklist.answers import Problem
from worklist.page import ROLES, Page, PageMaker, audited
from worklist.rooms.console import render
from worklist.templates import N_

room = APIRouter(prefix="/admin/users")

Name = Annotated[str, Form(max_length=64)]
Secret = Annotated[str, Form(max_length=1024)]
Number = Annotated[int, Form(ge=1)]


@room.get("", dependencies=[audited("users shown")])
@allow(*ADMINS)
def show(page: Page) -> Response:
    """Everybody who may log in."""
    with page.services.database.read() as session:
        rows = accounts.users(session)
    roles = {role: page.say(label) for role, label in ROLES.items()}
    return render(page, "admin/users.html", users=rows, roles=roles, me=page.visit.login)


@room.post("/add")
@allow(*ADMINS)
def add(page: Page, name: Name, role: Annotated[Role, Form()], password: Secret) -> Response:
    """Somebody new; the password is told in person and changed at the first opportunity."""
    try:
        checked = passwords.check_name(name)
        password_hash = passwords.hash_password(password, name=checked)
    except UsageError as error:
        raise Problem(422, str(error)) from None
    with page.services.database.begin() as session:
        if accounts.user(session, checked) is not None:
            raise Problem(409, N_("There is a user {name} already."), name=checked)
        added = accounts.add_user(session, checked, role, password_hash, now=page.services.database.now(session))
        page.record(session, "user added", user_id=added.id, role=role.value)
    return page.go("/admin/users")


@room.post("/role")
@allow(*ADMINS)
def change_role(page: Page, user: Number, role: Annotated[Role, Form()]) -> Response:
    """Another role; the user is logged out."""
    with page.services.database.begin() as session:
        found = _other(page, session, user)
        _require_local(found)
        if found.role is not role:
            page.record(session, "role changed", user_id=found.id, before=found.role.value, role=role.value)
            found.role = role
            accounts.end_logins(session, found.id)
    return page.go("/admin/users")


@room.post("/password")
@allow(*ADMINS)
def change_password(page: Page, user: Number, password: Secret) -> Response:
    """Another password, for somebody who has forgotten theirs; the user is logged out."""
    with page.services.database.read() as session:
        found = _other(page, session, user)
        _require_local(found)
        name = found.name
    try:
        password_hash = passwords.hash_password(password, name=name)
    except UsageError as error:
        raise Problem(422, str(error)) from None
    with page.services.database.begin() as session:
        found = _other(page, session, user)
        _require_local(found)
        found.password_hash = password_hash
        accounts.end_logins(session, found.id)
        page.record(session, "password changed", user_id=found.id)
    return page.go("/admin/users")


@room.post("/disable")
@allow(*ADMINS)
def disable(page: Page, user: Number, on: Annotated[bool, Form()]) -> Response:
    """Disable at once, or let log in again. Nobody is ever deleted: the audit trail names them."""
    with page.services.database.begin() as session:
        found = _other(page, session, user)
        if (found.disabled_at is None) == on:
            found.disabled_at = page.services.database.now(session) if on else None
            accounts.end_logins(session, found.id)
            page.record(session, "user disabled" if on else "user enabled", user_id=found.id)
    return page.go("/admin/users")


def _other(page: PageMaker, session: Session, number: int) -> User:
    """Another user than oneself: so one administrator always remains."""
    found = session.get(User, number)
    if found is None:
        raise Problem(404, N_("There is no such user."))
    if page.visit.login is not None and found.id == page.visit.login.user_id:
        raise Problem(409, N_("Another administrator must do this to you: so one always remains."))
    return found


def _require_local(user: User) -> None:
    """Passwords and roles of the others are the provider's."""
    if not user.is_local:
        raise Problem(409, N_("This user has password and role from the provider of logins: change them there."))
