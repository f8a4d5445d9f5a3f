"""When a study may be concluded."""

from datetime import datetime, timedelta

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from db import queue
from db.models import Instance, InstanceState, Job, JobKind, JobState, Study, StudyState
from db.queue import ClaimedJob


def request(session: Session, study_id: int, *, quiet: timedelta, now: datetime) -> None:
    """Have a study concluded as soon as it has been quiet for long enough."""
    study = session.get_one(Study, study_id)
    run_after = max(study.last_received_at + quiet, now)
    queue.request_conclusion(session, study_id, run_after=run_after, priority=study.priority, now=now)


def postpone(session: Session, job: ClaimedJob, *, run_after: datetime, error: str, now: datetime) -> None:
    """Give a conclusion back; if a late film has queued another one already, that one serves for both."""
    waiting = select(Job.id).where(
        Job.study_id == job.study_id, Job.kind == JobKind.CONCLUDE, Job.state == JobState.QUEUED
    )
    if session.scalars(waiting).first() is None:
        queue.postpone(session, job, run_after=run_after, error=error)
    else:
        queue.finish(session, job, now=now)


def is_ready(session: Session, study: Study, *, quiet: timedelta, now: datetime) -> bool:
    """Whether every film has its end and none has come for `quiet`.

    If not, another conclusion is queued already: by the late film, or by the end of the last analysis.
    """
    if study.last_received_at + quiet > now:
        return False
    unfinished = select(Instance.id).where(Instance.study_id == study.id, Instance.state == InstanceState.QUEUED)
    return session.scalars(unfinished.limit(1)).first() is None


def forgotten(session: Session) -> list[int]:
    """Open studies whose films are finished but which nothing is going to conclude: none, unless by a bug."""
    waiting = exists().where(
        Job.study_id == Study.id,
        Job.kind.in_([JobKind.CONCLUDE, JobKind.ANALYSE]),
        Job.state.in_([JobState.QUEUED, JobState.RUNNING]),
    )
    return list(session.scalars(select(Study.id).where(Study.state == StudyState.OPEN, ~waiting)))
