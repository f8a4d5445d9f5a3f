"""Logging in: password, back-off, and the link that makes the first administrator."""

import hashlib
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from db import accounts, audit
from db.accounts import FailedLogins, Limits, Purpose, User
from db.session import Database
from worklist import passwords

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


def log_in(database: Database, user: User, address: str, *, limits: Limits) -> str:
    """Open a login and record it; the value for the cookie."""
    token = passwords.new_token()
    with database.begin() as session:
        now = database.now(session)
        accounts.open_login(session, user.id, passwords.token_hash(token), address, limits=limits, now=now)
        forget_failures(session, user.name)
        audit.record(session, "logged in", actor=user.name, now=now, address=address)
    return token


def _keys(name: str, address: str) -> tuple[str, str]:
    """Hashes: what people type into the name's field is sometimes their password."""
    return _key("name", name.strip().lower()), _key("address", address)


def _key(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}\0{value}".encode()).hexdigest()
