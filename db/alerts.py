"""Alerts: what an admin should know without looking. Open until the cause has gone; acknowledged by a person."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Index, String, Text, and_, delete, func, or_, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db import audit
from db.models import Base, Id, states

CLOSED_KEPT = timedelta(days=400)


class AlertKind(enum.StrEnum):
    """What is wrong."""

    SILENT_SENDER = "silent_sender"
    STUCK = "stuck"
    FAILURES = "failures"
    DESTINATION = "destination"
    DISK_LOW = "disk_low"
    DISK_FORECAST = "disk_forecast"
    PROCESS_DOWN = "process_down"
    POLICY = "policy"
    BACKUP = "backup"
    PAUSED = "paused"


class Way(enum.StrEnum):
    """How messages go out."""

    MAIL = "mail"
    POST = "post"


class Alert(Base):
    """One cause at one place, from its beginning to its end."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "uq_alerts_open",
            "kind",
            "subject",
            unique=True,
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    kind: Mapped[AlertKind] = mapped_column(states(AlertKind))
    subject: Mapped[str] = mapped_column(String(64), comment="name of a sender, destination, process or stage")
    facts: Mapped[dict[str, Any]] = mapped_column(JSON(), comment="numbers and names for the sentence")
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None] = mapped_column(String(128))
    acknowledged_at: Mapped[datetime | None]
    mailed_at: Mapped[datetime | None]
    posted_at: Mapped[datetime | None]
    mailed_over_at: Mapped[datetime | None]
    posted_over_at: Mapped[datetime | None]
    trouble: Mapped[str | None] = mapped_column(Text, comment="why it could not be sent")


class DiskSample(Base):
    """Free space on the data folder's volume, once an hour."""

    __tablename__ = "disk_samples"

    at: Mapped[datetime] = mapped_column(primary_key=True)
    free: Mapped[float] = mapped_column(comment="bytes")


@dataclass(frozen=True)
class Finding:
    """A cause as it was found now."""

    kind: AlertKind
    subject: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


# When the message of the beginning was sent, and the one of the end.
_SENT = {
    Way.MAIL: (Alert.mailed_at, Alert.mailed_over_at),
    Way.POST: (Alert.posted_at, Alert.posted_over_at),
}


def update(session: Session, findings: Sequence[Finding], *, now: datetime) -> list[Alert]:
    """Open what is new, close what has gone, renew the facts of what stays; gives the new ones."""
    known = {(alert.kind, alert.subject): alert for alert in open_alerts(session)}
    opened: list[Alert] = []
    seen: set[tuple[AlertKind, str]] = set()
    for finding in findings:
        key = (finding.kind, finding.subject[:64])
        seen.add(key)
        if key in known:
            if known[key].facts != dict(finding.facts):
                known[key].facts = dict(finding.facts)
            continue
        alert = Alert(kind=key[0], subject=key[1], facts=dict(finding.facts), opened_at=now)
        session.add(alert)
        known[key] = alert
        opened.append(alert)
    for key, alert in known.items():
        if key not in seen:
            alert.closed_at = now
    session.execute(delete(Alert).where(Alert.closed_at < now - CLOSED_KEPT))
    session.flush()
    return opened


def open_alerts(session: Session) -> Sequence[Alert]:
    """Alerts whose cause is still there, oldest first."""
    return session.scalars(select(Alert).where(Alert.closed_at.is_(None)).order_by(Alert.id)).all()


def newest(session: Session, limit: int = 100) -> Sequence[Alert]:
    """Open ones first, then the others by time."""
    return session.scalars(select(Alert).order_by(Alert.closed_at.is_not(None), Alert.id.desc()).limit(limit)).all()


def acknowledge(session: Session, number: int, *, actor: str, now: datetime) -> bool:
    """Somebody has seen it; False: that was known already, or there is no such alert."""
    alert = session.get(Alert, number, with_for_update=True)
    if alert is None or alert.acknowledged_at is not None:
        return False
    alert.acknowledged_by, alert.acknowledged_at = actor, now
    audit.record(
        session, "alert acknowledged", actor=actor, now=now, alert=alert.id, kind=alert.kind.value
    )  # fmt: skip
    return True


def unsent(session: Session, way: Way, *, since: datetime) -> Sequence[Alert]:
    """What has not gone out on a way, oldest first: alerts that are open, and the ends of those that were told."""
    began, ended = _SENT[way]
    is_new = and_(Alert.closed_at.is_(None), Alert.opened_at >= since, began.is_(None))
    is_over = and_(Alert.closed_at >= since, began.is_not(None), ended.is_(None))
    happened = func.coalesce(Alert.closed_at, Alert.opened_at)
    return session.scalars(select(Alert).where(or_(is_new, is_over)).order_by(happened, Alert.id).limit(50)).all()


def note_sending(session: Session, told: Alert, way: Way, trouble: str | None, *, now: datetime) -> None:
    """Keep that an alert, as it was told, went out, or why it did not. What troubles the other way stays."""
    alert = session.get_one(Alert, told.id)
    if trouble is not None:
        alert.trouble = f"{way}: {trouble}"
        return
    if (alert.trouble or "").startswith(way):
        alert.trouble = None
    began, ended = _SENT[way]
    setattr(alert, (began if told.closed_at is None else ended).key, now)


def sample_disk(session: Session, free: int, *, now: datetime, period: timedelta, kept: timedelta) -> bool:
    """Keep a sample if the last one is older than `period`."""
    last = session.scalar(select(DiskSample.at).order_by(DiskSample.at.desc()).limit(1))
    if last is not None and now - last < period:
        return False
    session.add(DiskSample(at=now, free=float(free)))
    session.execute(delete(DiskSample).where(DiskSample.at < now - kept))
    return True


def disk_samples(session: Session, since: datetime) -> list[tuple[datetime, float]]:
    """Samples since a time, oldest first."""
    rows = session.execute(select(DiskSample.at, DiskSample.free).where(DiskSample.at >= since).order_by(DiskSample.at))
    return [(at, free) for at, free in rows]
