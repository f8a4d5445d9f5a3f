"""What an admin does to work that waits, runs or has failed: retry, cancel with a time to undo, priority, resend.

Every function may be called twice, or by two admins at once: what is done already is not done again. One audit record
for each study that is touched. Functions take a session and never commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Integer,
    Select,
    String,
    cast,
    func,
    literal,
    null,
    select,
    union_all,
    update,
)
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Mapped, Session, mapped_column

from db import audit, deliveries, queue
from db.models import (
    Base,
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    Job,
    JobKind,
    JobState,
    Result,
    Study,
    StudyState,
)
from db.queue import ClaimedJob

UNDO = timedelta(seconds=30)


class Cancellation(Base):
    """A job that an admin has stopped; until `due_at` it can be taken back, then its study shows it."""

    __tablename__ = "cancellations"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    actor: Mapped[str] = mapped_column(String(128))
    at: Mapped[datetime]
    due_at: Mapped[datetime] = mapped_column(index=True)


@dataclass(frozen=True)
class Failure:
    """Something that will not go on by itself."""

    kind: str  # film, study or delivery
    number: int  # row of instances, studies or studies
    study_id: int
    destination: str  # of a delivery
    reason: str
    status: int | None  # DICOM status of a delivery's last answer
    received_at: datetime

    @property
    def key(self) -> str:
        """Names it in forms."""
        return f"{self.kind}:{self.number}:{self.destination}"


def _failures() -> Select[tuple[str, int, int, str, str, int, datetime]]:
    """All failures, as rows of the fields of `Failure`."""
    films = (
        select(
            literal("film").label("kind"),
            Instance.id.label("number"),
            Instance.study_id.label("study_id"),
            literal("").label("destination"),
            func.coalesce(Instance.reason, "").label("reason"),
            cast(null(), Integer).label("status"),
            Instance.received_at.label("received_at"),
        )
    ).where(Instance.state == InstanceState.FAILED)
    studies = select(
        literal("study"), Study.id, Study.id, literal(""), func.coalesce(Study.reason, ""), cast(null(), Integer),
        Study.last_received_at,
    ).where(Study.state == StudyState.FAILED)  # fmt: skip
    unsent = (
        select(
            literal("delivery"), Study.id, Study.id, Delivery.destination,
            func.max(func.coalesce(Delivery.last_error, "")), func.max(Delivery.dicom_status),
            Study.last_received_at,
        )
        .join(Result, Result.id == Delivery.result_id)
        .join(Study, Study.id == Result.study_id)
        .where(Delivery.state == DeliveryState.FAILED, Result.revision == Study.revision)
        .group_by(Study.id, Delivery.destination, Study.last_received_at)
    )  # fmt: skip
    return select(union_all(films, studies, unsent).subquery())


def failures(session: Session, *, reason: str | None = None, offset: int = 0, limit: int = 100) -> list[Failure]:
    """What has failed and not been tried again, newest study first.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        For reading.
    reason : str, optional
        Exactly this one.
    offset, limit : int
    """
    rows = _failures().subquery()
    found = select(rows).order_by(rows.c.study_id.desc(), rows.c.kind, rows.c.number).offset(offset).limit(limit)
    if reason is not None:
        found = found.where(rows.c.reason == reason)
    return [Failure(**row._mapping) for row in session.execute(found)]


@dataclass(frozen=True)
class Reason:
    """Failures of one kind with the same reason."""

    kind: str
    destination: str
    reason: str
    status: int | None
    count: int
    latest: datetime


def reasons(session: Session) -> list[Reason]:
    """Failures counted by kind, destination and reason."""
    rows = _failures().subquery()
    grouped = select(
        rows.c.kind,
        rows.c.destination,
        rows.c.reason,
        rows.c.status,
        func.count().label("count"),
        func.max(rows.c.received_at).label("latest"),
    ).group_by(rows.c.kind, rows.c.destination, rows.c.reason, rows.c.status)
    return [Reason(**row._mapping) for row in session.execute(grouped)]


def retry(session: Session, key: str, *, actor: str, now: datetime) -> bool:
    """Try one failure again; False: it is none any more.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    key : str
        See `Failure.key`.
    actor : str
    now : datetime

    Raises
    ------
    ValueError
        If the key is none.
    """
    kind, _, rest = key.partition(":")
    number, _, destination = rest.partition(":")
    act: dict[str, Callable[[], int | None]] = {
        "film": lambda: _retry_film(session, int(number), now),
        "study": lambda: _retry_study(session, int(number), now),
        "delivery": lambda: _retry_delivery(session, int(number), destination, now),
    }
    if kind not in act or not number.isdecimal() or len(number) > 15:
        raise ValueError("this names no failure")
    study_id = act[kind]()
    if study_id is None:
        return False
    audit.record(session, "tried again", actor=actor, now=now, study_id=study_id, what=kind)
    return True


def retry_study(
    session: Session, study: Study, destinations: Sequence[str], *, actor: str, now: datetime
) -> tuple[int, int]:
    """Try all again that failed of one study.

    Returns
    -------
    tuple of int
        Films, and results that wait for sending.
    """
    failed = session.scalars(
        select(Instance.id).where(Instance.study_id == study.id, Instance.state == InstanceState.FAILED)
    ).all()
    films = sum(_retry_film(session, number, now) is not None for number in failed)
    if not films:
        _retry_study(session, study.id, now)
    sent = deliveries.retry(session, study, list(destinations), now=now)
    if sent:
        _forget_failed_jobs(
            session, Job.kind == JobKind.DELIVER, Job.study_id == study.id, Job.destination.in_(destinations)
        )
    audit.record(session, "tried again", actor=actor, now=now, study_id=study.id)
    return films, sent


def _retry_film(session: Session, number: int, now: datetime) -> int | None:
    film = session.get(Instance, number, with_for_update=True)
    if film is None or film.state is not InstanceState.FAILED:
        return None
    study = session.get_one(Study, film.study_id)
    film.state, film.reason = InstanceState.QUEUED, None
    study.state, study.reason = StudyState.OPEN, None
    _forget_failed_jobs(session, Job.kind == JobKind.ANALYSE, Job.instance_id == film.id)
    queue.add(
        session, JobKind.ANALYSE, study_id=study.id, instance_id=film.id, priority=study.priority, now=now
    )  # fmt: skip
    return study.id


def _retry_study(session: Session, number: int, now: datetime) -> int | None:
    study = session.get(Study, number, with_for_update=True)
    if study is None or study.state is not StudyState.FAILED:
        return None
    study.state, study.reason = StudyState.OPEN, None
    _forget_failed_jobs(session, Job.kind == JobKind.CONCLUDE, Job.study_id == study.id)
    queue.request_conclusion(session, study.id, run_after=now, priority=study.priority, now=now)
    return study.id


def _retry_delivery(session: Session, number: int, destination: str, now: datetime) -> int | None:
    study = session.get(Study, number, with_for_update=True)
    if study is None or not deliveries.retry(session, study, [destination], now=now):
        return None
    _forget_failed_jobs(session, Job.kind == JobKind.DELIVER, Job.study_id == study.id, Job.destination == destination)
    return study.id


def _forget_failed_jobs(session: Session, *which: ColumnElement[bool]) -> None:
    """A failure that was tried again is history: it must not keep the study from retention."""
    session.execute(
        update(Job)
        .where(Job.state == JobState.FAILED, *which)
        .values(state=JobState.DONE)
        .execution_options(synchronize_session=False)
    )


def cancel(session: Session, numbers: Sequence[int], *, actor: str, now: datetime) -> int:
    """Stop jobs; nothing follows from it for `UNDO`. Running work is not published any more.

    Returns
    -------
    int
        How many were stopped: those that waited or ran.
    """
    stopped = session.execute(
        update(Job)
        .where(Job.id.in_(numbers), Job.state.in_([JobState.QUEUED, JobState.RUNNING]))
        .values(
            state=JobState.FAILED,
            token=Job.token + 1,
            lease_until=None,
            finished_at=now,
            last_error=f"cancelled by {actor}",
        )
        .returning(Job.id, Job.study_id, Job.kind)
        .execution_options(synchronize_session=False)
    ).all()
    for number, _, _ in stopped:
        session.add(Cancellation(job_id=number, actor=actor, at=now, due_at=now + UNDO))
    _record_each(session, "work cancelled", stopped, actor=actor, now=now)
    return len(stopped)


def undo_cancel(session: Session, numbers: Sequence[int], *, actor: str, now: datetime) -> int:
    """Take cancellations back that have not taken effect; gives their number."""
    taken = session.execute(
        delete_from(Cancellation)
        .where(Cancellation.job_id.in_(numbers), Cancellation.due_at > now)
        .returning(Cancellation.job_id)
    ).all()
    back = []
    for (number,) in taken:
        job = session.get_one(Job, number)
        if job.kind is JobKind.CONCLUDE:
            # A film that came meanwhile may have queued another one; there can be one open conclusion only.
            study = session.get_one(Study, job.study_id)
            job.state = JobState.DONE
            queue.request_conclusion(session, study.id, run_after=now, priority=study.priority, now=now)
        else:
            job.state, job.attempts, job.finished_at, job.last_error = JobState.QUEUED, 0, None, None
            job.run_after = now
        back.append((job.id, job.study_id, job.kind))
    session.flush()
    _record_each(session, "cancellation taken back", back, actor=actor, now=now)
    return len(back)


def settle_cancelled(
    session: Session, follow: Callable[[ClaimedJob, str], None], *, now: datetime, limit: int = 500
) -> int:
    """Let cancellations take effect whose time to undo is over; gives their number.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    follow : callable
        What a failed job means for its study; gets the job and the reason.
    now : datetime
    limit : int
        Most in one transaction.
    """
    due = session.scalars(
        select(Cancellation).where(Cancellation.due_at <= now).order_by(Cancellation.due_at).limit(limit)
    ).all()
    for entry in due:
        job = session.get_one(Job, entry.job_id)
        claimed = ClaimedJob(
            id=job.id,
            kind=job.kind,
            token=job.token,
            attempts=job.attempts,
            retries=job.retries,
            study_id=job.study_id,
            instance_id=job.instance_id,
            destination=job.destination,
            revision=job.revision,
            created_at=job.created_at,
        )
        follow(claimed, f"cancelled by {entry.actor}")
        session.delete(entry)
    return len(due)


def cancelled(session: Session, *, now: datetime) -> list[tuple[Cancellation, Job]]:
    """What can still be taken back."""
    rows = session.execute(
        select(Cancellation, Job)
        .join(Job, Job.id == Cancellation.job_id)
        .where(Cancellation.due_at > now)
        .order_by(Cancellation.due_at)
        .limit(500)
    )
    return [(entry, job) for entry, job in rows]


def set_priority(session: Session, numbers: Sequence[int], priority: int, *, actor: str, now: datetime) -> int:
    """Give the studies of these jobs another priority, with all their work that waits; gives the number of studies."""
    studies = session.scalars(
        select(Study)
        .where(Study.id.in_(select(Job.study_id).where(Job.id.in_(numbers))), Study.priority != priority)
        .order_by(Study.id)
        .with_for_update()
    ).all()
    for study in studies:
        audit.record(
            session, "priority changed", actor=actor, now=now, study_id=study.id, before=study.priority, after=priority
        )
        study.priority = priority
        session.execute(
            update(Job)
            .where(Job.study_id == study.id, Job.state == JobState.QUEUED)
            .values(priority=priority)
            .execution_options(synchronize_session=False)
        )
    return len(studies)


@dataclass(frozen=True)
class Line:
    """A job as the queues show it."""

    id: int
    kind: JobKind
    state: JobState
    study_id: int
    destination: str
    priority: int
    created_at: datetime
    run_after: datetime
    attempts: int
    retries: int
    owner: str | None
    last_error: str | None
    finished_at: datetime | None


_TABS: dict[str, tuple[ColumnElement[bool], ...]] = {
    "waiting": (Job.state == JobState.QUEUED, Job.kind.in_([JobKind.ANALYSE, JobKind.CONCLUDE])),
    "running": (Job.state == JobState.RUNNING, Job.kind.in_([JobKind.ANALYSE, JobKind.CONCLUDE])),
    "sending": (Job.state.in_([JobState.QUEUED, JobState.RUNNING]), Job.kind == JobKind.DELIVER),
    "done": (Job.state == JobState.DONE,),
}


def _matching(tab: str, kind: JobKind | None, destination: str | None) -> tuple[ColumnElement[bool], ...]:
    conditions = _TABS[tab]
    if kind is not None:
        conditions += (Job.kind == kind,)
    if destination is not None:
        conditions += (Job.destination == destination,)
    return conditions


def lines(
    session: Session,
    tab: str,
    *,
    kind: JobKind | None = None,
    destination: str | None = None,
    offset: int = 0,
    limit: int = 100,
) -> list[Line]:
    """Jobs of a tab: `waiting`, `running`, `sending` in the order of work, `done` newest first."""
    order = (Job.id.desc(),) if tab == "done" else (Job.priority.desc(), Job.run_after, Job.id)
    columns = [getattr(Job, name) for name in Line.__dataclass_fields__]
    found = select(*columns).where(*_matching(tab, kind, destination)).order_by(*order).offset(offset).limit(limit)
    return [Line(**row._mapping) for row in session.execute(found)]


def numbers(session: Session, tab: str, *, kind: JobKind | None = None, destination: str | None = None) -> list[int]:
    """All jobs of a tab, oldest first."""
    return list(session.scalars(select(Job.id).where(*_matching(tab, kind, destination)).order_by(Job.id)))


def sizes(session: Session) -> dict[str, int]:
    """How many are in each tab; all work that is done is not counted."""
    found = {"waiting": 0, "running": 0, "sending": 0}
    for state in (JobState.QUEUED, JobState.RUNNING):  # each has a partial index
        rows = session.execute(select(Job.kind, func.count()).where(Job.state == state).group_by(Job.kind))
        for kind, count in rows:
            tab = "sending" if kind is JobKind.DELIVER else "waiting" if state is JobState.QUEUED else "running"
            found[tab] += count
    found["failed"] = session.scalar(select(func.count()).select_from(_failures().subquery())) or 0
    return found


def oldest_open(session: Session) -> datetime | None:
    """Since when the oldest work waits or runs; None: there is none."""
    found = [
        at
        for state in (JobState.QUEUED, JobState.RUNNING)
        if (at := session.scalar(select(func.min(Job.created_at)).where(Job.state == state))) is not None
    ]
    return min(found, default=None)


def _record_each(
    session: Session, event: str, jobs: Iterable[tuple[int, int, JobKind]], *, actor: str, now: datetime
) -> None:
    """One audit record a study."""
    studies: dict[int, list[str]] = {}
    for _, study_id, kind in jobs:
        studies.setdefault(study_id, []).append(kind.value)
    for study_id, kinds in sorted(studies.items()):
        audit.record(session, event, actor=actor, now=now, study_id=study_id, jobs=kinds)
