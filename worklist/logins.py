"""Logging in: password or provider, back-off, and the link that makes the first administrator."""

import hashlib
import ipaddress
from datetime import datetime, timedelta

from sqlalchemy import delete
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


def known_browser(session: Session, user: User | None, cookie: str) -> str | None:
    """What to count failures by when the user has logged in with this browser before; None: it has not.

    Whoever fails on purpose in somebody's name, elsewhere, must not lock that person out.
    """
    token_hash = passwords.token_hash(cookie)
    return token_hash if user and cookie and accounts.knows_browser(session, user.id, token_hash) else None


def remember_browser(session: Session, user: User, cookie: str, *, now: datetime) -> str:
    """The user has logged in with this browser; the value for its cookie.

    A value that nobody has logged in with may have been planted, and is replaced.
    """
    known = cookie and accounts.knows_browser(session, None, passwords.token_hash(cookie))
    value = cookie if known else passwords.new_token()
    accounts.remember_browser(session, user.id, passwords.token_hash(value), now=now)
    return value


def waiting_seconds(session: Session, name: str, address: str, *, now: datetime, browser: str | None = None) -> float:
    """How long neither this name nor this address may try, or only a known browser of this name; 0: now."""
    rows = [session.get(FailedLogins, key) for key in _keys(name, address, browser)]
    ends = [row.blocked_until for row in rows if row and row.blocked_until]
    return max((max(0.0, (end - now).total_seconds()) for end in ends), default=0.0)


def count_failure(session: Session, name: str, address: str, *, now: datetime, browser: str | None = None) -> None:
    """One more failure of this name, existing or not, and of this address; those that count no more are forgotten.

    Of a known browser of this name instead, if it came from one.
    """
    session.execute(delete(FailedLogins).where(FailedLogins.last_at < now - FORGET))
    for key, tries in _keys(name, address, browser).items():
        row = session.get(FailedLogins, key)
        if row is None:
            row = FailedLogins(key=key, count=0, last_at=now, blocked_until=None)
            session.add(row)
        row.count, row.last_at = row.count + 1, now
        if row.count >= tries:
            row.blocked_until = now + min(FIRST_WAIT * 2 ** min(row.count - tries, 10), LONGEST_WAIT)


def forget_failures(session: Session, name: str, browser: str | None) -> None:
    """The user has logged in. What the address did otherwise still counts, and what failed outside this browser."""
    row = session.get(FailedLogins, next(iter(_keys(name, "", browser))))
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
    browser: str | None = None,
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
    browser : str, optional
        As `known_browser` gave it.

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
        forget_failures(session, user.name, browser)
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
    user = accounts.user_of(session, person.identity) or _added_meanwhile(session, person)
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


def _added_meanwhile(session: Session, person: Person) -> User | None:
    """The user of a person who was not there a moment ago; None: the name is free.

    Another first login of the same person may end between two reads of one transaction (PostgreSQL).

    Raises
    ------
    LoginRefused
        If the name is another's: who has it locally, or at another provider, may be somebody else.
    """
    named = accounts.user(session, require_name(person))
    if named is not None and named.identity != person.identity:
        raise LoginRefused(Refusal.NAME_TAKEN, person.identity.subject)
    return named


def _add(session: Session, person: Person, role: Role, address: str, *, now: datetime) -> User:
    name = require_name(person)
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


def _keys(name: str, address: str, browser: str | None) -> dict[str, int]:
    """Failures before the wait begins, by hash: what people type as their name is sometimes their password."""
    its_name = name.strip().lower()
    if browser is not None:
        return {_key("browser", f"{browser}\0{its_name}"): TRIES_OF_NAME}
    return {_key("name", its_name): TRIES_OF_NAME, _key("address", _network(address)): TRIES_OF_ADDRESS}


def _network(address: str) -> str:
    """An IPv6 address stands for its /64: whoever has one of them has all."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network(f"{found}/64", strict=False)) if found.version == 6 else address


def _key(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}\0{value}".encode()).hexdigest()
