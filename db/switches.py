"""Pause and resume of receiving, analysing and sending: a row is a pause, and it holds until somebody ends it."""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import String, Text, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from db import audit
from db.models import Base, states


class Stage(enum.StrEnum):
    """What can be paused.

    RECEIVE: senders are told to try again later; what has been accepted goes on. ANALYSE: no film is read and no study
    concluded. SEND: no destination is called. What was begun when the pause came is finished.
    """

    RECEIVE = "receive"
    ANALYSE = "analyse"
    SEND = "send"


class Switch(Base):
    """A stage that is paused."""

    __tablename__ = "switches"

    stage: Mapped[Stage] = mapped_column(states(Stage), primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(128))
    since: Mapped[datetime]


def is_paused(session: Session, stage: Stage) -> bool:
    """Whether a stage is paused; one look-up by key, so that a loop may ask before each piece of work."""
    return session.scalar(select(Switch.stage).where(Switch.stage == stage)) is not None


def paused(session: Session) -> dict[Stage, Switch]:
    """All pauses."""
    return {switch.stage: switch for switch in session.scalars(select(Switch))}


def pause(session: Session, stage: Stage, *, reason: str, actor: str, now: datetime) -> bool:
    """Pause a stage; False: it was paused already, and the first reason stands.

    Raises
    ------
    ValueError
        Without a reason.
    """
    if not reason.strip():
        raise ValueError("a pause needs a reason")
    if is_paused(session, stage):
        return False
    session.add(Switch(stage=stage, reason=reason.strip()[:500], actor=actor, since=now))
    session.flush()
    audit.record(session, "stage paused", actor=actor, now=now, stage=stage.value)
    return True


def resume(session: Session, stage: Stage, *, actor: str, now: datetime) -> bool:
    """End a pause; False: there was none."""
    ended = session.execute(delete(Switch).where(Switch.stage == stage).returning(Switch.since)).all()
    if not ended:
        return False
    seconds = round((now - ended[0][0]).total_seconds())
    audit.record(session, "stage resumed", actor=actor, now=now, stage=stage.value, seconds=seconds)
    return True
