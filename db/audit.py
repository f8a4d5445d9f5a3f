"""The audit trail: append-only, each record chained to the one before by its hash."""

import hashlib
import json
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.models import Audit

_FIRST = "0" * 64
# Any fixed number: two writers on PostgreSQL must not chain to the same record.
_ADVISORY_LOCK = 0x636C6672


def record(
    session: Session,
    event: str,
    *,
    actor: str,
    now: datetime,
    study_id: int | None = None,
    instance_id: int | None = None,
    **detail: Any,
) -> None:
    """Append one record.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The record commits together with what it tells of.
    event : str
        What happened, such as "film received again with other bytes".
    actor : str
        Who did it: a user, a sender's AE title and address, or a process.
    now : datetime
        Aware UTC.
    study_id, instance_id : int, optional
        Row numbers, never identifiers of patients.
    **detail
        Further facts; JSON values, no patient data.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    previous = session.scalars(select(Audit.hash).order_by(Audit.id.desc()).limit(1)).first() or _FIRST
    entry = Audit(
        at=now,
        event=event,
        actor=actor,
        study_id=study_id,
        instance_id=instance_id,
        detail=detail,
        previous_hash=previous,
        hash="",
    )
    entry.hash = _digest(entry)
    session.add(entry)
    session.flush()


def first_broken(session: Session) -> int | None:
    """Number of the first record that was changed or whose forerunner was removed; None: the chain holds."""
    previous = _FIRST
    with session.scalars(select(Audit).order_by(Audit.id).execution_options(yield_per=1000)) as entries:
        for entry in entries:
            if entry.previous_hash != previous or entry.hash != _digest(entry):
                return entry.id
            previous = entry.hash
    return None


def _digest(entry: Audit) -> str:
    content = [
        entry.previous_hash,
        entry.at.isoformat(),
        entry.event,
        entry.actor,
        entry.study_id,
        entry.instance_id,
        entry.detail,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
