"""Logging in: password or provider, back-off, and the link that makes the first administrator."""

import hashlib
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from clearfilm.config import Worklist
from db import accounts, audit
from db.accounts import FailedLogins, Limits, Purpose, Role, User
from db.session import Database
from worklist import passwords
from worklist.oidc.claims import Person, require_name
from worklist.oidc.errors import LoginRefused, Refusal

FIRST_LOGIN_HOURS = 24
# Failures before the wait begins: of one name; of one address, behind which there may be many people.
TRIES_OF_NAME, TRIES_OF_ADDRESS = 5, 20
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=10), timedelta(minutes=15)
# Old failures count no more.
FORGET = timedelta(hours=24)


def first_login_path(database: Database) -> str | None:
    """Path of the page that makes the first administrator, good once and for a day; None: there are users.

    Notes
    -----
    The link goes to the console: who reads it there may administer the node anyway. An earlier one ends.
    """
    token = passwords.new_token()
    with database.begin() as session:
        if not accounts.is_empty(session):
            return None
        expires_at = database.now(session) + timedelta(hours=FIRST_LOGIN_HOURS)
        accounts.add_token(session, Purpose.FIRST_ADMIN, passwords.token_hash(token), expires_at=expires_at)
    return f"first?token={token}"


def waiting_seconds(session: Session, name: str, address: str, *, now: datetime) -> float:
    """How long neither this name nor this address may try; 0: now."""
    rows = [session.get(FailedLogins, key) for key in _keys(name, address)]
    ends = [row.blocked_until for row in rows if row and row.blocked_until]
    return max((max(0.0, (end - now).total_seconds()) for end in ends), default=0.0)


def count_failure(session: Session, name: str, address: str, *, now: datetime) -> None:
    """One more failure of this name, existing or not, and of this address."""
    for key, tries in zip(_keys(name, address), (TRIES_OF_NAME, TRIES_OF_ADDRESS), strict=True):
        row = session.get(FailedLogins, key)
        if row is None:
            row = FailedLogins(key=key, count=0, last_at=now, blocked_until=None)
            session.add(row)
        if now - row.last_at > FORGET:
            row.count = 0
        row.count, row.last_at = row.count + 1, now
        if row.count >= tries:
            row.blocked_until = now + min(FIRST_WAIT * 2 ** min(row.count - tries, 10), LONGEST_WAIT)


def forget_failures(session: Session, name: str) -> None:
    """The user has logged in. What the address did otherwise still counts."""
    row = session.get(FailedLogins, _keys(name, "")[0])
    if row is not None:
        session.delete(row)


def may_use_password(user: User, section: Worklist) -> bool:
    """Whether the user logs in with a password of this node."""
    return user.is_local and (section.oidc.local_logins == "everybody" or user.role is Role.ADMIN)


def log_in(
    database: Database,
    user: User,
    address: str,
    *,
    limits: Limits,
    token: str | None = None,
    id_token: str | None = None,
) -> str:
    """Open a login and record it.

    Parameters
    ----------
    database : Database
        Of this process.
    user : User
        Who has shown to be it.
    address : str
        Of the browser.
    limits : Limits
        How long logins hold.
    token : str, optional
        Fresh value for the cookie; made here otherwise.
    id_token : str, optional
        Of the provider, encrypted with `token`.

    Returns
    -------
    str
        The value for the cookie.
    """
    token = token or passwords.new_token()
    token_hash = passwords.token_hash(token)
    with database.begin() as session:
        now = database.now(session)
        accounts.open_login(session, user.id, token_hash, address, limits=limits, now=now, id_token=id_token)
        forget_failures(session, user.name)
        audit.record(session, "logged in", actor=user.name, now=now, address=address, provider=user.issuer)
    return token


def admit(database: Database, person: Person, address: str) -> User:
    """The user of a person whom the provider vouches for: made at the first login, with today's role at each.

    Raises
    ------
    LoginRefused
        If the user is disabled, has no role any more, or would be new and has no role, no name, or another's name.
        Logins that a user still has end when the role is gone.
    """
    if person.role is None:
        _log_out(database, person)
        left_out = person.are_groups_left_out
        raise LoginRefused(Refusal.GROUPS_LEFT_OUT if left_out else Refusal.NO_ROLE, person.identity.subject)
    try:
        with database.begin() as session:
            return _admit(session, person, person.role, address, now=database.now(session))
    except IntegrityError:
        # Two first logins at once, or a local user of the same name at this moment: now it is there.
        with database.begin() as session:
            return _admit(session, person, person.role, address, now=database.now(session))


def _admit(session: Session, person: Person, role: Role, address: str, *, now: datetime) -> User:
    user = accounts.user_of(session, person.identity)
    if user is None:
        return _add(session, person, role, address, now=now)
    if user.disabled_at is not None:
        raise LoginRefused(Refusal.DISABLED, actor=user.name)
    if user.role is not role:
        audit.record(
            session,
            "role changed",
            actor=user.name,
            now=now,
            address=address,
            provider=user.issuer,
            user_id=user.id,
            before=user.role.value,
            role=role.value,
        )
        user.role = role
        accounts.end_logins(session, user.id)
    return user


def _add(session: Session, person: Person, role: Role, address: str, *, now: datetime) -> User:
    """Never another's name: who has it locally, or at another provider, may be somebody else."""
    name = require_name(person)
    if accounts.user(session, name) is not None:
        raise LoginRefused(Refusal.NAME_TAKEN, person.identity.subject)
    user = accounts.add_user_of(session, person.identity, name, role, now=now)
    provider = person.identity.issuer
    audit.record(
        session,
        "user added",
        actor=name,
        now=now,
        address=address,
        provider=provider,
        user_id=user.id,
        role=role.value,
    )
    return user


def _log_out(database: Database, person: Person) -> None:
    """Everywhere, if there is such a user: the provider says that it has no role any more."""
    with database.begin() as session:
        user = accounts.user_of(session, person.identity)
        if user is not None:
            accounts.end_logins(session, user.id)


def _keys(name: str, address: str) -> tuple[str, str]:
    """Hashes: what people type into the name's field is sometimes their password."""
    return _key("name", name.strip().lower()), _key("address", address)


def _key(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}\0{value}".encode()).hexdigest()
