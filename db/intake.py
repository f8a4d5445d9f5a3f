"""A received film becomes rows and jobs, in one unit of work."""

import enum
import functools
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import Connection, Executable, Table, bindparam, case, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from clearfilm.ages import age_years
from clearfilm.names import search_key
from db import audit, conclusions, queue
from db.models import Instance, InstanceState, Job, JobKind, JobState, Study, StudyState

# Statements on the tables and not the classes, and built once: they run for every film.
_STUDIES, _INSTANCES, _JOBS = (cast(Table, model.__table__) for model in (Study, Instance, Job))
_SELECT_STORED = select(_INSTANCES.c.id, _INSTANCES.c.digest).where(_INSTANCES.c.sop_instance_uid == bindparam("uid"))
_INSERT_INSTANCE = insert(_INSTANCES).returning(_INSTANCES.c.id)
_RAISE_JOBS = (
    update(_JOBS)
    .where(
        _JOBS.c.study_id == bindparam("of_study"),
        _JOBS.c.state == JobState.QUEUED,
        _JOBS.c.priority < bindparam("raised"),
    )
    .values(priority=bindparam("raised"))
)
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
    patient_age: str | None = None
    location: str | None = None


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
    view_position: str | None = None


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
    connection = session.connection()
    stored = _stored(connection, film)
    if film.digest in stored:
        return Outcome.DUPLICATE
    study_id, priority = _open_study(connection, film, now)
    if connection.dialect.name != "sqlite":
        # Only now is the study locked, and another process may have been quicker. SQLite has one writer.
        stored = _stored(connection, film)
        if film.digest in stored:
            return Outcome.DUPLICATE
    values = vars(film) | {"study_id": study_id, "received_at": now, "conflict": bool(stored)}
    del values["study"]
    instance_id = connection.execute(_INSERT_INSTANCE, values).scalar_one()
    if stored:
        _mark_conflict(session, film, study_id, instance_id, list(stored.values()), now)
    queue.add(session, JobKind.ANALYSE, study_id=study_id, instance_id=instance_id, priority=priority, now=now)
    queue.request_conclusion(session, study_id, run_after=now + quiet, priority=priority, now=now)
    return Outcome.CONFLICT if stored else Outcome.NEW


def revive(session: Session, instance_id: int, *, now: datetime, quiet: timedelta) -> None:
    """Let a failed film, whose file is there again, be analysed and its study concluded anew.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    instance_id : int
        Row of the film.
    now, quiet
        As for `record`.
    """
    instance = session.get_one(Instance, instance_id)
    # Locks the study first, as `record` does.
    study = session.get_one(Study, instance.study_id, with_for_update=True)
    session.refresh(instance)
    if instance.state is not InstanceState.FAILED:
        return
    instance.state, instance.reason = InstanceState.QUEUED, None
    study.state = StudyState.OPEN
    waiting = select(Job.id).where(
        Job.instance_id == instance_id,
        Job.kind == JobKind.ANALYSE,
        Job.state.in_([JobState.QUEUED, JobState.RUNNING]),
    )
    if session.scalars(waiting).first() is None:
        queue.add(
            session, JobKind.ANALYSE, study_id=study.id, instance_id=instance_id, priority=study.priority, now=now
        )
    conclusions.request(session, study.id, quiet=quiet, now=now)
    audit.record(
        session, "lost film restored", actor=instance.sender, now=now, study_id=study.id, instance_id=instance_id
    )


def _stored(connection: Connection, film: ReceivedFilm) -> dict[str, int]:
    """Digest and row of every object that came with the film's UID."""
    rows = connection.execute(_SELECT_STORED, {"uid": film.sop_instance_uid})
    return {row.digest: row.id for row in rows}


def _open_study(connection: Connection, film: ReceivedFilm, now: datetime) -> tuple[int, int]:
    """Number and priority of the study, locked, made if it is new; a late film opens a concluded one again."""
    attributes = film.study
    ordered = (attributes.ordered_priority or "").strip().upper()
    values = vars(attributes) | {
        "priority": _PRIORITIES.get(ordered, queue.PRIORITY_ROUTINE),
        "age_years": age_years(attributes.patient_age, attributes.patient_birth_date, attributes.study_date),
        "search": search_key(attributes.patient_name, attributes.patient_id, attributes.accession_number),
        "sender": film.sender,
        "state": StudyState.OPEN,
        "first_received_at": now,
        "last_received_at": now,
    }
    del values["patient_age"]
    row = connection.execute(_upsert_study(connection.dialect.name), values).one()
    if values["priority"] > queue.PRIORITY_ROUTINE:
        connection.execute(_RAISE_JOBS, {"of_study": row.id, "raised": row.priority})
    return row.id, row.priority


@functools.cache
def _upsert_study(dialect: str) -> Executable:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(_STUDIES)
    new = statement.excluded
    # An order is only ever raised by a later film.
    raised = {
        name: case((new.priority > _STUDIES.c.priority, new[name]), else_=_STUDIES.c[name])
        for name in ("priority", "ordered_priority")
    }
    return statement.on_conflict_do_update(
        index_elements=[_STUDIES.c.study_instance_uid],
        set_={
            "last_received_at": new.last_received_at,
            "state": new.state,
            # Nobody has read the film that came just now.
            "reading": None,
            "read_at": None,
            **raised,
        },
    ).returning(_STUDIES.c.id, _STUDIES.c.priority)


def _mark_conflict(
    session: Session, film: ReceivedFilm, study_id: int, instance_id: int, others: list[int], now: datetime
) -> None:
    session.execute(update(Instance).where(Instance.id.in_(others)).values(conflict=True))
    audit.record(
        session,
        "film received again with other bytes",
        actor=film.sender,
        now=now,
        study_id=study_id,
        instance_id=instance_id,
        others=others,
    )
