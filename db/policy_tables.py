"""The tables of the triage policy: its stages and the devices that it knows. Placements are beside the studies."""

from datetime import datetime
from typing import Any

from sqlalchemy import String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from clearfilm.policy.stages import Stage
from db.models import Base, Id, states


class PolicyStep(Base):
    """The history of the triage policy's stage; the latest row is in force."""

    __tablename__ = "policy_steps"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime]
    stage: Mapped[Stage] = mapped_column(states(Stage), comment="in force from now on")
    proposed: Mapped[str | None] = mapped_column(String(32), comment="stage signed once, waits for another person")
    actor: Mapped[str] = mapped_column(String(128), comment="who signed last, or the process")
    reason: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(comment="first signature, and the figures at that time")


class Device(Base):
    """A device that took films which came from a sender; new ones are not released."""

    __tablename__ = "devices"
    __table_args__ = (UniqueConstraint("sender", "manufacturer", "model", "serial"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    sender: Mapped[str] = mapped_column(String(64), comment="name in the configuration")
    manufacturer: Mapped[str] = mapped_column(Text, comment="(0008,0070) LO")
    model: Mapped[str] = mapped_column(Text, comment="(0008,1090) LO")
    serial: Mapped[str] = mapped_column(Text, comment="(0018,1000) LO, else (0008,1010) SH")
    first_seen_at: Mapped[datetime]
    signed_at: Mapped[datetime | None]
    signed_by: Mapped[str | None] = mapped_column(String(128), comment="first of two")
    signed_reason: Mapped[str | None] = mapped_column(Text)
    released_at: Mapped[datetime | None]
    released_by: Mapped[str | None] = mapped_column(String(128), comment="second of two")
    released_reason: Mapped[str | None] = mapped_column(Text)
