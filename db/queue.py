"""The job queue: claims in one statement, leases with fencing tokens, attempts counted at the claim.

Functions take a session and never commit; the caller's unit of work does.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, Executable, ScalarSelect, Table, and_, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from clearfilm import metrics
from clearfilm.errors import LostLease
from db.models import Job, JobKind, JobState

MAXIMUM_ATTEMPTS = 3
LEASE = timedelta(seconds=120)
HEARTBEAT = timedelta(seconds=30)
PRIORITY_STAT, PRIORITY_HIGH, PRIORITY_ROUTINE = 2, 1, 0
_PRIORITIES = (PRIORITY_STAT, PRIORITY_HIGH, PRIORITY_ROUTINE)


@dataclass(frozen=True)
class ClaimedJob:
    """A job that this process owns until its lease ends."""

    id: int
    kind: JobKind
    token: int  # a later claim has a larger one; writes under an old one change nothing
    attempts: int  # this one included
    retries: int
    study_id: int
    instance_id: int | None
    destination: str
    revision: int | None
    created_at: datetime


# Statements on the table and not the class, and built once: the listener runs them for every film.
_JOBS = cast(Table, Job.__table__)
_INSERT = insert(_JOBS)
_CLAIMED = [getattr(Job, field.name) for field in fields(ClaimedJob)]


def add(
    session: Session,
    kind: JobKind,
    *,
    study_id: int,
    now: datetime,
    instance_id: int | None = None,
    destination: str = "",
    revision: int | None = None,
    priority: int = PRIORITY_ROUTINE,
) -> None:
    """Queue a job that may run at once."""
    session.flush()
    session.connection().execute(
        _INSERT,
        {
            "kind": kind,
            "study_id": study_id,
            "instance_id": instance_id,
            "destination": destination,
            "revision": revision,
            "priority": priority,
            "run_after": now,
            "created_at": now,
        },
    )


def request_conclusion(
    session: Session, study_id: int, *, run_after: datetime, now: datetime, priority: int = PRIORITY_ROUTINE
) -> None:
    """Queue the conclusion of a study, or move the one that waits already."""
    session.flush()
    session.connection().execute(
        _upsert_conclusion(session.get_bind().dialect.name),
        {
            "kind": JobKind.CONCLUDE,
            "state": JobState.QUEUED,
            "study_id": study_id,
            "priority": priority,
            "run_after": run_after,
            "created_at": now,
        },
    )


@functools.cache
def _upsert_conclusion(dialect: str) -> Executable:
    # The index's own words: a bound parameter here would not match the partial index.
    where = next(index for index in _JOBS.indexes if index.name == "uq_jobs_open_conclusion")
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(_JOBS)
    return statement.on_conflict_do_update(
        index_elements=[_JOBS.c.study_id],
        index_where=where.dialect_options[dialect]["where"],
        set_={"run_after": statement.excluded.run_after, "priority": statement.excluded.priority},
    )


def claim(
    session: Session,
    kind: JobKind,
    *,
    owner: str,
    now: datetime,
    destination: str = "",
    lease: timedelta = LEASE,
) -> ClaimedJob | None:
    """Take the most urgent, then oldest runnable job; an expired lease makes a job runnable again.

    The attempt is counted here, before the work, so that a job which kills its worker comes to an end.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        Commit it before the work begins.
    kind : JobKind
        What to claim.
    owner : str
        Host and process, for the admin.
    now : datetime
        Aware UTC.
    destination : str
        Of deliveries.
    lease : datetime.timedelta
        Time until another worker may take the job over.

    Returns
    -------
    ClaimedJob or None
        None: nothing is runnable.
    """
    of_kind = and_(Job.kind == kind, Job.destination == destination)
    statement = (
        update(Job)
        .where(Job.id == func.coalesce(*_candidates(session, of_kind, now)))
        .values(
            state=JobState.RUNNING,
            owner=owner,
            token=Job.token + 1,
            attempts=Job.attempts + 1,
            lease_until=now + lease,
        )
        .returning(*_CLAIMED)
        .execution_options(synchronize_session=False)
    )
    row = session.execute(statement).one_or_none()
    return ClaimedJob(**row._mapping) if row else None


def _candidates(session: Session, of_kind: ColumnElement[bool], now: datetime) -> list[ScalarSelect[int]]:
    """One index look-up for each priority, so that a million jobs which may not run yet cost nothing."""
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    queued = [
        select(Job.id)
        .where(of_kind, Job.state == JobState.QUEUED, Job.priority == priority, Job.run_after <= now)
        .order_by(Job.run_after, Job.id)
        .limit(1)
        for priority in _PRIORITIES
    ]
    abandoned = (
        select(Job.id)
        .where(
            of_kind,
            Job.state == JobState.RUNNING,
            Job.lease_until < now,
            Job.attempts < MAXIMUM_ATTEMPTS,
        )
        .order_by(Job.lease_until)
        .limit(1)
    )
    choices = [abandoned, *queued]
    if is_postgresql:
        choices = [choice.with_for_update(skip_locked=True) for choice in choices]
    return [choice.scalar_subquery() for choice in choices]


def extend(session: Session, jobs: Sequence[ClaimedJob], *, now: datetime, lease: timedelta = LEASE) -> None:
    """Heartbeat: keep the jobs that are still ours. A lost one is noticed when it is ended."""
    if jobs:
        session.execute(
            update(Job)
            .where(or_(*(_owned(job) for job in jobs)))
            .values(lease_until=now + lease)
            .execution_options(synchronize_session=False)
        )


def finish(session: Session, job: ClaimedJob, *, now: datetime) -> None:
    """End a job well.

    Raises
    ------
    LostLease
        If another worker has claimed it since; roll everything back then.
    """
    _end(session, job, state=JobState.DONE, finished_at=now, lease_until=None)
    metrics.JOBS.labels(job.kind.value, "done").inc()


def fail(session: Session, job: ClaimedJob, *, error: str, now: datetime) -> None:
    """End a job visibly without success. Raises LostLease as `finish` does."""
    _end(session, job, state=JobState.FAILED, finished_at=now, lease_until=None, last_error=error)
    metrics.JOBS.labels(job.kind.value, "failed").inc()


def postpone(session: Session, job: ClaimedJob, *, run_after: datetime, error: str | None = None) -> None:
    """Give a job back in good order; this is no strike. Raises LostLease as `finish` does."""
    _end(
        session,
        job,
        state=JobState.QUEUED,
        run_after=run_after,
        lease_until=None,
        attempts=0,
        retries=Job.retries + 1,
        last_error=error,
    )
    metrics.JOBS.labels(job.kind.value, "postponed").inc()


def strike(session: Session, job: ClaimedJob, *, run_after: datetime, error: str, now: datetime) -> JobState:
    """Give a job back after an unexpected error; the attempt counts, and the third one fails the job.

    Returns
    -------
    JobState
        QUEUED or FAILED. Raises LostLease as `finish` does.
    """
    if job.attempts >= MAXIMUM_ATTEMPTS:
        fail(session, job, error=error, now=now)
        return JobState.FAILED
    _end(session, job, state=JobState.QUEUED, run_after=run_after, lease_until=None, last_error=error)
    metrics.JOBS.labels(job.kind.value, "error").inc()
    return JobState.QUEUED


def expire_dead(session: Session, is_dead: Callable[[str], bool], *, now: datetime) -> int:
    """End the leases of processes that are known to be gone, so that their jobs need not wait; gives their number.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    is_dead : callable
        Tells whether the process that owns a job (`Job.owner`) is gone.
    now : datetime
        Aware UTC.
    """
    running = session.execute(
        select(Job.id, Job.owner, Job.token).where(Job.state == JobState.RUNNING, Job.lease_until >= now)
    ).all()
    dead = [(job_id, token) for job_id, owner, token in running if owner and is_dead(owner)]
    for job_id, token in dead:
        session.execute(
            update(Job)
            .where(Job.id == job_id, Job.token == token)
            .values(lease_until=now - timedelta(seconds=1))
            .execution_options(synchronize_session=False)
        )
    return len(dead)


def take_exhausted(session: Session, *, now: datetime) -> list[ClaimedJob]:
    """Fail the jobs whose third worker has gone too, and tell which they were."""
    statement = (
        update(Job)
        .where(Job.state == JobState.RUNNING, Job.lease_until < now, Job.attempts >= MAXIMUM_ATTEMPTS)
        .values(
            state=JobState.FAILED,
            finished_at=now,
            lease_until=None,
            token=Job.token + 1,
            last_error=f"the process ended without a result {MAXIMUM_ATTEMPTS} times",
        )
        .returning(*_CLAIMED)
        .execution_options(synchronize_session=False)
    )
    return [ClaimedJob(**row._mapping) for row in session.execute(statement)]


def _owned(job: ClaimedJob) -> ColumnElement[bool]:
    return and_(Job.id == job.id, Job.token == job.token, Job.state == JobState.RUNNING)


def _end(session: Session, job: ClaimedJob, **values: object) -> None:
    statement = update(Job).where(_owned(job)).values(**values).execution_options(synchronize_session=False)
    if session.execute(statement).rowcount != 1:  # type: ignore[attr-defined]
        raise LostLease(f"job {job.id} was claimed by another worker in the meantime")
