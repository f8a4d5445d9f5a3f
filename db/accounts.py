"""Who may use the web pages: users, their logins, one-time tokens, and failed tries.

Tokens and passwords are kept as hashes only. Functions take a session and never commit.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, delete, func, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.models import Base, Id, states

# That are remembered of one user.
MOST_BROWSERS = 20


class Role(enum.StrEnum):
    """What a user may do; the pages name the roles that each of them is for."""

    READER = "reader"  # sees the list and the cases
    RADIOLOGIST = "radiologist"  # and says agree or disagree
    ADMIN = "admin"  # and steers the node
    AUDITOR = "auditor"  # sees the audit trail, no patients


class Purpose(enum.StrEnum):
    """What a one-time token opens."""

    FIRST_ADMIN = "first_admin"


class User(Base):
    """Somebody who may log in, now or once."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True, comment="for logging in; lower case")
    role: Mapped[Role] = mapped_column(states(Role))
    password_hash: Mapped[str | None] = mapped_column(Text, comment="argon2id; null: none, logs in elsewhere")
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    settings: Mapped[dict[str, Any]] = mapped_column(JSON(), comment="language, theme, zone")
    issuer: Mapped[str | None] = mapped_column(String(255), comment="provider that vouches for the user; null: local")
    subject: Mapped[str | None] = mapped_column(String(255), comment="what the provider calls the user for ever")

    __table_args__ = (Index("uq_users_issuer_subject", "issuer", "subject", unique=True),)

    @property
    def is_local(self) -> bool:
        """Logs in with a password of this node, not at a provider."""
        return self.issuer is None

    @property
    def identity(self) -> Identity | None:
        """Who it is for its provider; None: a user of this node."""
        return Identity(self.issuer, self.subject) if self.issuer is not None and self.subject is not None else None


class Login(Base):
    """One browser that is logged in."""

    __tablename__ = "logins"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True, comment="SHA-256 of the cookie's value")
    address: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime] = mapped_column(comment="last request that a person made, to the minute")
    id_token: Mapped[str | None] = mapped_column(Text, comment="of the provider, encrypted with the cookie's value")


class OneTimeToken(Base):
    """Opens one page once."""

    __tablename__ = "one_time_tokens"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    purpose: Mapped[Purpose] = mapped_column(states(Purpose))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True, comment="SHA-256")
    expires_at: Mapped[datetime]


class FailedLogins(Base):
    """Failed tries with one name, whether it exists or not, or from one address."""

    __tablename__ = "failed_logins"

    key: Mapped[str] = mapped_column(String(64), primary_key=True, comment="SHA-256 of what failed")
    count: Mapped[int]
    last_at: Mapped[datetime] = mapped_column(index=True)
    blocked_until: Mapped[datetime | None]


class KnownBrowser(Base):
    """A browser in which a user has logged in with a password; several people may use it."""

    __tablename__ = "known_browsers"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True, comment="SHA-256 of the cookie's value")
    seen_at: Mapped[datetime]


@dataclass(frozen=True)
class Identity:
    """Who somebody is for a provider; both are compared letter by letter. Names change, these do not."""

    issuer: str
    subject: str


@dataclass(frozen=True)
class LoggedIn:
    """A login that holds, with what the pages need of its user."""

    login_id: int
    user_id: int
    name: str
    role: Role
    settings: dict[str, Any]
    created_at: datetime
    seen_at: datetime
    is_local: bool
    id_token: str | None  # encrypted


@dataclass(frozen=True)
class Limits:
    """How long a login holds: without any request of its user, and at all."""

    idle: timedelta
    absolute: timedelta


def users(session: Session) -> Sequence[User]:
    """All users by name."""
    return session.scalars(select(User).order_by(User.name)).all()


def user(session: Session, name: str) -> User | None:
    """The user of this name, disabled or not."""
    if "\0" in name:
        return None  # PostgreSQL takes no such text, not even for looking
    return session.scalars(select(User).where(User.name == name.strip().lower())).one_or_none()


def user_of(session: Session, identity: Identity) -> User | None:
    """The user whom a provider knows like this, disabled or not; never looked for by name."""
    found = select(User).where(User.issuer == identity.issuer, User.subject == identity.subject)
    return session.scalars(found).one_or_none()


def is_empty(session: Session) -> bool:
    """Whether there has never been a user."""
    return session.scalar(select(func.count()).select_from(User)) == 0


def add_user(session: Session, name: str, role: Role, password_hash: str | None, *, now: datetime) -> User:
    """Add a user; the caller has made sure that the name is free."""
    added = User(name=name.strip().lower(), role=role, password_hash=password_hash, created_at=now, settings={})
    session.add(added)
    session.flush()
    return added


def add_user_of(session: Session, identity: Identity, name: str, role: Role, *, now: datetime) -> User:
    """Add a user who logs in at a provider and has no password here; the name is free."""
    added = add_user(session, name, role, None, now=now)
    bind(added, identity)
    session.flush()
    return added


def bind(user: User, identity: Identity) -> None:
    """From now on the user logs in at the provider only."""
    user.issuer, user.subject, user.password_hash = identity.issuer, identity.subject, None


def open_login(
    session: Session,
    user_id: int,
    token_hash: str,
    address: str,
    *,
    limits: Limits,
    now: datetime,
    id_token: str | None = None,
) -> int:
    """Begin a login and forget the ones of this user that have run out; its number. `id_token` is encrypted."""
    stale = or_(Login.seen_at < now - limits.idle, Login.created_at < now - limits.absolute)
    session.execute(delete(Login).where(Login.user_id == user_id, stale))
    login = Login(
        user_id=user_id, token_hash=token_hash, address=address, created_at=now, seen_at=now, id_token=id_token
    )
    session.add(login)
    session.flush()
    return login.id


def find_login(session: Session, token_hash: str, *, limits: Limits, now: datetime) -> LoggedIn | None:
    """The login of a cookie, if it holds and its user is not disabled."""
    row = session.execute(
        select(Login, User)
        .join(User, User.id == Login.user_id)
        .where(
            Login.token_hash == token_hash,
            Login.seen_at >= now - limits.idle,
            Login.created_at >= now - limits.absolute,
            User.disabled_at.is_(None),
        )
    ).one_or_none()
    if row is None:
        return None
    login, owner = row
    return LoggedIn(
        login.id,
        owner.id,
        owner.name,
        owner.role,
        owner.settings,
        login.created_at,
        login.seen_at,
        is_local=owner.is_local,
        id_token=login.id_token,
    )


def touch_login(session: Session, login_id: int, *, now: datetime) -> None:
    """The user of this login did something."""
    session.execute(update(Login).where(Login.id == login_id).values(seen_at=now))


def end_login(session: Session, login_id: int) -> None:
    """Log out here."""
    session.execute(delete(Login).where(Login.id == login_id))


def end_logins(session: Session, user_id: int, *, but: int | None = None) -> None:
    """Log out everywhere, but perhaps in the login of this number."""
    session.execute(delete(Login).where(Login.user_id == user_id, Login.id != (but or 0)))


def knows_browser(session: Session, user_id: int | None, token_hash: str) -> bool:
    """Whether this user, or with None anybody, has logged in with the browser of this cookie."""
    found = select(KnownBrowser.user_id).where(KnownBrowser.token_hash == token_hash)
    if user_id is not None:
        found = found.where(KnownBrowser.user_id == user_id)
    return session.scalar(found.limit(1)) is not None


def remember_browser(session: Session, user_id: int, token_hash: str, *, now: datetime) -> None:
    """The user has logged in with it; the least recent of many are forgotten."""
    row = session.get(KnownBrowser, (user_id, token_hash))
    if row is None:
        row = KnownBrowser(user_id=user_id, token_hash=token_hash, seen_at=now)
        session.add(row)
    row.seen_at = now
    session.flush()
    newest_first = select(KnownBrowser).where(KnownBrowser.user_id == user_id).order_by(KnownBrowser.seen_at.desc())
    for old in session.scalars(newest_first.offset(MOST_BROWSERS)):
        session.delete(old)


def add_token(session: Session, purpose: Purpose, token_hash: str, *, expires_at: datetime) -> None:
    """Make a one-time token; earlier ones of the same purpose end."""
    session.execute(delete(OneTimeToken).where(OneTimeToken.purpose == purpose))
    session.add(OneTimeToken(purpose=purpose, token_hash=token_hash, expires_at=expires_at))


def has_token(session: Session, purpose: Purpose, token_hash: str, *, now: datetime) -> bool:
    """Whether the token is good; it stays so."""
    found = select(OneTimeToken.id).where(
        OneTimeToken.purpose == purpose, OneTimeToken.token_hash == token_hash, OneTimeToken.expires_at >= now
    )
    return session.scalar(found) is not None


def take_token(session: Session, purpose: Purpose, token_hash: str, *, now: datetime) -> bool:
    """Use the token up; whether it was good. Of two at once, one gets True."""
    taken = session.execute(
        delete(OneTimeToken)
        .where(OneTimeToken.purpose == purpose, OneTimeToken.token_hash == token_hash, OneTimeToken.expires_at >= now)
        .returning(OneTimeToken.id)
    ).all()
    return bool(taken)
