"""A received film becomes rows and jobs, in one unit of work."""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db import audit, queue
from db.models import Instance, JobKind, Study, StudyState

_PRIORITIES = {
    "STAT": queue.PRIORITY_STAT,
    "HIGH": queue.PRIORITY_HIGH,
    "URGENT": queue.PRIORITY_HIGH,
    "ASAP": queue.PRIORITY_HIGH,
}


class Outcome(enum.Enum):
    """What the film is to the node."""

    NEW = "new"
    DUPLICATE = "duplicate"  # same UID and bytes: nothing was added
    CONFLICT = "conflict"  # same UID, other bytes: kept beside the first, both marked


@dataclass(frozen=True)
class StudyAttributes:
    """Patient and request attributes as received (see `db.models.Study`)."""

    study_instance_uid: str
    patient_name: str | None = None
    patient_id: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    accession_number: str | None = None
    study_date: str | None = None
    study_time: str | None = None
    study_description: str | None = None
    ordered_priority: str | None = None


@dataclass(frozen=True)
class ReceivedFilm:
    """A film whose file is durable already (see `db.models.Instance`)."""

    study: StudyAttributes
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str | None
    transfer_syntax_uid: str
    digest: str
    size: int
    path: str
    sender: str
    calling_ae_title: str


def is_known(session: Session, sop_instance_uid: str, digest: str) -> bool:
    """Whether exactly these bytes are stored already."""
    statement = select(Instance.id).where(Instance.sop_instance_uid == sop_instance_uid, Instance.digest == digest)
    return session.scalars(statement).first() is not None


def record(session: Session, film: ReceivedFilm, *, now: datetime, quiet: timedelta) -> Outcome:
    """Write a film's rows: study, instance, its analysis, and the study's (new) conclusion.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits; only then may the sender be told "success".
    film : ReceivedFilm
        What was received.
    now : datetime
        Aware UTC.
    quiet : datetime.timedelta
        The study is concluded when no film has come for this long.

    Returns
    -------
    Outcome
        DUPLICATE: nothing was written, the caller deletes its file.
    """
    if is_known(session, film.sop_instance_uid, film.digest):
        return Outcome.DUPLICATE
    study = _open_study(session, film.study, now)
    others = session.scalars(select(Instance.id).where(Instance.sop_instance_uid == film.sop_instance_uid)).all()
    instance = Instance(
        study_id=study.id,
        sop_instance_uid=film.sop_instance_uid,
        sop_class_uid=film.sop_class_uid,
        series_instance_uid=film.series_instance_uid,
        transfer_syntax_uid=film.transfer_syntax_uid,
        digest=film.digest,
        size=film.size,
        path=film.path,
        sender=film.sender,
        calling_ae_title=film.calling_ae_title,
        received_at=now,
        conflict=bool(others),
    )
    session.add(instance)
    session.flush()
    if others:
        _mark_conflict(session, instance, list(others), now)
    queue.add(
        session,
        JobKind.ANALYSE,
        study_id=study.id,
        instance_id=instance.id,
        priority=study.priority,
        now=now,
    )
    queue.request_conclusion(session, study.id, run_after=now + quiet, priority=study.priority, now=now)
    return Outcome.CONFLICT if others else Outcome.NEW


def _open_study(session: Session, attributes: StudyAttributes, now: datetime) -> Study:
    """The study's row, locked, made if it is new; a late film opens a concluded one again."""
    make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    ordered = (attributes.ordered_priority or "").strip().upper()
    session.execute(
        make(Study)
        .values(
            **vars(attributes),
            priority=_PRIORITIES.get(ordered, queue.PRIORITY_ROUTINE),
            first_received_at=now,
            last_received_at=now,
        )
        .on_conflict_do_nothing(index_elements=[Study.study_instance_uid])
    )
    study = session.scalars(
        select(Study).where(Study.study_instance_uid == attributes.study_instance_uid).with_for_update()
    ).one()
    study.last_received_at = now
    study.state = StudyState.OPEN
    return study


def _mark_conflict(session: Session, instance: Instance, others: list[int], now: datetime) -> None:
    session.execute(update(Instance).where(Instance.id.in_(others)).values(conflict=True))
    audit.record(
        session,
        "film received again with other bytes",
        actor=instance.sender,
        now=now,
        study_id=instance.study_id,
        instance_id=instance.id,
        others=others,
    )
