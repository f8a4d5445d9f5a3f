"""`clearfilm user`: who may log in to the web pages."""

import getpass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from clearfilm.errors import ClearfilmError, UsageError
from cli.node import opened, prepared
from cli.terminal import print_json, print_table, say
from db import accounts, audit
from db.accounts import Identity, Role, User
from worklist import passwords


def add(config_path: Path, name: str, role: str, password_file: Path | None) -> None:
    """Add a user. Raises UsageError for a name, role or password that cannot be."""
    checked, its_role = passwords.check_name(name), _role(role)
    password_hash = passwords.hash_password(_password(password_file), name=checked)
    with prepared(config_path) as (_, database), database.begin() as session:
        if accounts.user(session, checked) is not None:
            raise ClearfilmError(f"there is a user {checked} already")
        now = database.now(session)
        user = accounts.add_user(session, checked, its_role, password_hash, now=now)
        _record(session, "user added", user, now, role=its_role.value)
    say(f"{checked} may log in as {its_role.value}")


def print_users(config_path: Path, *, as_json: bool) -> None:
    """All users."""
    with opened(config_path) as (_, database), database.read() as session:
        rows = [
            {
                "name": user.name,
                "role": user.role.value,
                "provider": user.issuer,
                "created_at": user.created_at,
                "disabled_at": user.disabled_at,
            }
            for user in accounts.users(session)
        ]
    if as_json:
        print_json(rows)
        return
    print_table("", ["name", "role", "provider", "since", "disabled since"], [list(row.values()) for row in rows])


def disable(config_path: Path, name: str, *, undo: bool) -> None:
    """Disable a user at once, or let it log in again."""
    with opened(config_path) as (_, database), database.begin() as session:
        user, now = _find(session, name), database.now(session)
        user.disabled_at = None if undo else now
        accounts.end_logins(session, user.id)
        _record(session, "user enabled" if undo else "user disabled", user, now)
    say(f"{user.name} {'may log in again' if undo else 'is logged out and cannot log in'}")


def change_password(config_path: Path, name: str, password_file: Path | None) -> None:
    """Set another password. Raises UsageError for one that cannot be."""
    with opened(config_path) as (_, database):
        with database.read() as session:
            found = _local(session, name).name
        password_hash = passwords.hash_password(_password(password_file), name=found)
        with database.begin() as session:
            user, now = _local(session, found), database.now(session)
            user.password_hash = password_hash
            accounts.end_logins(session, user.id)
            _record(session, "password changed", user, now)
    say(f"{found} has a new password and is logged out everywhere")


def change_role(config_path: Path, name: str, role: str) -> None:
    """Set another role."""
    its_role = _role(role)
    with opened(config_path) as (_, database), database.begin() as session:
        user, now = _local(session, name), database.now(session)
        _record(session, "role changed", user, now, before=user.role.value, role=its_role.value)
        user.role = its_role
        accounts.end_logins(session, user.id)
    say(f"{user.name} is {its_role.value} now")


def link(config_path: Path, name: str, subject: str) -> None:
    """Have a local user log in at the provider of the configuration from now on."""
    if not (subject.isascii() and subject.isprintable() and 1 <= len(subject) <= 255):
        raise UsageError("the subject is the claim `sub`: at most 255 ASCII characters")
    with opened(config_path) as (config, database), database.begin() as session:
        issuer = config.worklist.oidc.issuer
        if issuer is None:
            raise ClearfilmError("there is no provider of logins: set worklist.oidc.issuer")
        identity = Identity(issuer, subject)
        other = accounts.user_of(session, identity)
        if other is not None:
            raise ClearfilmError(f"the provider's {subject} is {other.name} already")
        user, now = _local(session, name), database.now(session)
        accounts.bind(user, identity)
        accounts.end_logins(session, user.id)
        _record(session, "user linked", user, now, provider=issuer, subject=subject)
    say(f"{user.name} logs in at {issuer} from now on, and has no password here")


def _find(session: Session, name: str) -> User:
    user = accounts.user(session, name)
    if user is None:
        raise ClearfilmError(f"there is no user {name}; see clearfilm user list")
    return user


def _local(session: Session, name: str) -> User:
    user = _find(session, name)
    if not user.is_local:
        raise ClearfilmError(f"{user.name} has role and password from {user.issuer}: change them there")
    return user


def _role(role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise UsageError(f"there is no role {role}; there are {', '.join(Role)}") from None


def _password(path: Path | None) -> str:
    """From the file's first line, or asked twice without echo."""
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read as text ({error})") from error
        return lines[0] if lines else ""
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise UsageError("the two passwords differ")
    return password


def _record(session: Session, event: str, user: User, now: datetime, **detail: Any) -> None:
    audit.record(session, event, actor=getpass.getuser(), now=now, user_id=user.id, where="console", **detail)
