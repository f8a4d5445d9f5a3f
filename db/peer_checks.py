"""What destinations answered when they were tried: the newest results of each are kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String, Text, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from db import audit
from db.models import Base, Id

KEPT = 50


class PeerCheck(Base):
    """One try."""

    __tablename__ = "peer_checks"
    __table_args__ = (Index("ix_peer_checks_destination", "destination", "id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    destination: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16), comment="echo or rehearsal")
    good: Mapped[bool]
    message: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSON(), comment="seconds, accepted contexts")
    actor: Mapped[str] = mapped_column(String(128))
    at: Mapped[datetime]


def keep(session: Session, check: PeerCheck) -> None:
    """Add a result and forget the oldest of its destination."""
    session.add(check)
    session.flush()
    oldest = (
        select(PeerCheck.id)
        .where(PeerCheck.destination == check.destination)
        .order_by(PeerCheck.id.desc())
        .offset(KEPT)
        .limit(1)
        .scalar_subquery()
    )
    session.execute(delete(PeerCheck).where(PeerCheck.destination == check.destination, PeerCheck.id <= oldest))
    audit.record(
        session, "destination tried", actor=check.actor, now=check.at, destination=check.destination, kind=check.kind,
        good=check.good,
    )  # fmt: skip


def newest(session: Session, destination: str, limit: int = 10) -> Sequence[PeerCheck]:
    """Results of a destination, newest first."""
    return session.scalars(
        select(PeerCheck).where(PeerCheck.destination == destination).order_by(PeerCheck.id.desc()).limit(limit)
    ).all()


def newest_answer(session: Session, destination: str) -> int:
    """Number of the newest try that was answered; 0: none was."""
    answered = PeerCheck.destination == destination, PeerCheck.good
    return session.scalar(select(func.max(PeerCheck.id)).where(*answered)) or 0
