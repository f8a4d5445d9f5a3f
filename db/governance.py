"""The tables of model governance: who signed what, which bundle was active when, how each was trained."""

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from db.models import Base, Id, states


class SignatureKind(enum.StrEnum):
    """What a signature is for."""

    PROMOTION = "promotion"
    ROLLBACK = "rollback"


class RunOutcome(enum.StrEnum):
    """How a training run stands. DIED: its process ended without a word."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    DIED = "died"


class Signature(Base):
    """A user's signature under a switch of models, as the gates were then."""

    __tablename__ = "model_signatures"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    kind: Mapped[SignatureKind] = mapped_column(states(SignatureKind))
    user: Mapped[str] = mapped_column("signed_by", String(128))
    reason: Mapped[str] = mapped_column(Text)
    waivers: Mapped[dict[str, Any]] = mapped_column(comment="failed gate to the reason why it does not count")
    gates_digest: Mapped[str | None] = mapped_column(String(64), comment="promotion: of bundle, evaluation and gates")
    signed_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None] = mapped_column(String(128))
    withdrawn_reason: Mapped[str | None] = mapped_column(Text)


class Activation(Base):
    """One switch of the active bundle."""

    __tablename__ = "model_activations"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    replaced_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"))
    rollback: Mapped[bool] = mapped_column(default=False)
    activated_at: Mapped[datetime]


class TrainingRun(Base):
    """A run of `clearfilm train`, also one that failed."""

    __tablename__ = "training_runs"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    folder: Mapped[str] = mapped_column(Text, unique=True)
    cohort_digest: Mapped[str] = mapped_column(String(64), index=True)
    cohort_folder: Mapped[str] = mapped_column(Text)
    cohort: Mapped[dict[str, Any]] = mapped_column(comment="counts by part, label and rule; no patient data")
    settings: Mapped[dict[str, Any]]
    started_by: Mapped[str] = mapped_column(String(128), comment="a user, or the schedule")
    started_at: Mapped[datetime]
    owner: Mapped[str] = mapped_column(String(128), comment="process that trains")
    ended_at: Mapped[datetime | None]
    outcome: Mapped[RunOutcome] = mapped_column(states(RunOutcome), index=True)
    detail: Mapped[str | None] = mapped_column(Text, comment="why it failed")
    bundle_digest: Mapped[str | None] = mapped_column(String(64), index=True)
