"""Who called this node: a bounded log of associations, and the senders that an admin trusted from it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Index, Integer, String, Text, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from clearfilm.errors import UsageError
from db import audit
from db.models import Base, Id, states

# Newest entries of each outcome that are kept: a flood of one kind does not push the others out.
KEPT = 2000


class Outcome(enum.StrEnum):
    """How an association request ended."""

    ACCEPTED = "accepted"
    DENIED = "denied"  # not listed, or wrong title
    DEFERRED = "deferred"  # paused, or the disk is nearly full: try again later


class AssociationEntry(Base):
    """Associations of one peer that went alike within a few seconds."""

    __tablename__ = "associations"
    __table_args__ = (Index("ix_associations_newest", "outcome", "id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    outcome: Mapped[Outcome] = mapped_column(states(Outcome))
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    called_ae_title: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64))
    peer: Mapped[str | None] = mapped_column(String(64), comment="sender or destination in the configuration")
    reason: Mapped[str] = mapped_column(Text, comment="of what was not accepted")
    times: Mapped[int] = mapped_column(Integer)
    stored: Mapped[int] = mapped_column(Integer, comment="C-STORE requests answered with success")
    refused: Mapped[int] = mapped_column(Integer, comment="C-STORE requests answered with a failure")
    refusal: Mapped[str] = mapped_column(Text, comment="why the last of these")
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class TrustedSender(Base):
    """A sender that an admin added from the log; the configuration's stand beside them."""

    __tablename__ = "trusted_senders"
    __table_args__ = (Index("ix_trusted_senders_present", "revoked_at"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    ae_title: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64))
    added_by: Mapped[str] = mapped_column(String(128))
    added_at: Mapped[datetime]
    revoked_by: Mapped[str | None] = mapped_column(String(128))
    revoked_at: Mapped[datetime | None]


@dataclass
class Call:
    """One association, or several alike, on the way to the log. Texts come from the peer: bounded, not checked."""

    outcome: Outcome
    calling_ae_title: str
    called_ae_title: str
    address: str
    peer: str | None
    reason: str
    at: datetime
    times: int = 1
    stored: int = 0
    refused: int = 0
    refusal: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What entries have in common that are written as one."""
        return (self.outcome, self.calling_ae_title, self.called_ae_title, self.address, self.peer, self.reason)

    def add(self, other: Call) -> None:
        """Count one more."""
        self.times += other.times
        self.stored += other.stored
        self.refused += other.refused
        self.refusal = other.refusal or self.refusal


def write(session: Session, calls: Iterable[tuple[Call, datetime]]) -> None:
    """Add entries, each with the time of its last association, and forget the oldest."""
    for call, last_at in calls:
        session.add(
            AssociationEntry(
                outcome=call.outcome,
                calling_ae_title=call.calling_ae_title[:16],
                called_ae_title=call.called_ae_title[:16],
                address=call.address[:64],
                peer=call.peer,
                reason=call.reason[:500],
                times=call.times,
                stored=call.stored,
                refused=call.refused,
                refusal=call.refusal[:500],
                first_at=call.at,
                last_at=last_at,
            )
        )
    session.flush()
    for outcome in Outcome:
        oldest = (
            select(AssociationEntry.id)
            .where(AssociationEntry.outcome == outcome)
            .order_by(AssociationEntry.id.desc())
            .offset(KEPT)
            .limit(1)
            .scalar_subquery()
        )
        session.execute(
            delete(AssociationEntry).where(AssociationEntry.outcome == outcome, AssociationEntry.id <= oldest)
        )


def newest(
    session: Session, outcome: Outcome | None = None, *, before: int | None = None, limit: int = 100
) -> Sequence[AssociationEntry]:
    """Entries, newest first; `before`: older than this row."""
    found = select(AssociationEntry).order_by(AssociationEntry.id.desc()).limit(limit)
    if outcome is not None:
        found = found.where(AssociationEntry.outcome == outcome)
    if before is not None:
        found = found.where(AssociationEntry.id < before)
    return session.scalars(found).all()


def trusted(session: Session) -> Sequence[TrustedSender]:
    """Senders that are trusted now, oldest first."""
    return session.scalars(
        select(TrustedSender).where(TrustedSender.revoked_at.is_(None)).order_by(TrustedSender.id)
    ).all()


def trust(
    session: Session, *, name: str, ae_title: str, address: str, taken: Iterable[str], actor: str, now: datetime
) -> TrustedSender:
    """Trust a title from one address; a pair that is trusted already stays as it is.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    name : str
        For lists and logs.
    ae_title, address : str
        Checked by the caller; no networks and no "*": those stand in the configuration.
    taken : iterable of str
        Names in the configuration.
    actor : str
    now : datetime

    Raises
    ------
    UsageError
        If another sender has the name.
    """
    present = trusted(session)
    for sender in present:
        if (sender.ae_title, sender.address) == (ae_title, address):
            return sender
    if name in {*taken, *(sender.name for sender in present)}:
        raise UsageError(f"there is a sender of the name {name!r} already; choose another one")
    added = TrustedSender(name=name, ae_title=ae_title, address=address, added_by=actor, added_at=now)
    session.add(added)
    session.flush()
    audit.record(session, "sender trusted", actor=actor, now=now, sender=name, ae_title=ae_title, address=address)
    return added


def revoke(session: Session, number: int, *, actor: str, now: datetime) -> bool:
    """Trust a sender no more; False: it was not trusted. Films that it sent stay."""
    sender = session.get(TrustedSender, number, with_for_update=True)
    if sender is None or sender.revoked_at is not None:
        return False
    sender.revoked_by, sender.revoked_at = actor, now
    audit.record(
        session, "sender trusted no more", actor=actor, now=now, sender=sender.name, ae_title=sender.ae_title,
        address=sender.address,
    )  # fmt: skip
    return True


def count_denied(session: Session, since: datetime) -> int:
    """Denied associations since a time."""
    total = select(func.coalesce(func.sum(AssociationEntry.times), 0)).where(
        AssociationEntry.outcome == Outcome.DENIED, AssociationEntry.last_at >= since
    )
    return int(session.scalar(total) or 0)
