"""What follows when a job fails for good: every study still comes to a visible end."""

import logging
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clearfilm.errors import LostLease
from db import conclusions, deliveries, queue
from db.models import Instance, InstanceState, JobKind, JobState, Study, StudyState
from db.queue import ClaimedJob
from db.session import Database

logger = logging.getLogger(__name__)


def strike(database: Database, job: ClaimedJob, error: Exception, *, retry: timedelta, quiet: timedelta) -> None:
    """Give a job back after an unexpected error, or fail it with all consequences at the third one."""
    # The message of a foreign error may quote the data; its type does not.
    text = f"unexpected {type(error).__name__}"
    try:
        with database.begin() as session:
            now = database.now(session)
            state = queue.strike(session, job, run_after=now + retry, error=text, now=now)
            if state is JobState.FAILED:
                follow(session, job, error=text, quiet=quiet, now=now)
    except LostLease:
        logger.warning("lease lost", extra={"job_id": job.id})
    except SQLAlchemyError:
        # The lease runs out, and the job is claimed again when the database is back.
        logger.exception("the database is away", extra={"job_id": job.id})


def follow(session: Session, job: ClaimedJob, *, error: str, quiet: timedelta, now: datetime) -> None:
    """Write down what a failed job means for its film, study or deliveries."""
    logger.error("job failed", extra={"job_id": job.id, "kind": job.kind.value, "error": error})
    if job.kind is JobKind.ANALYSE:
        instance = session.get_one(Instance, job.instance_id)
        instance.state, instance.reason = InstanceState.FAILED, f"analysis failed: {error}"
        conclusions.request(session, job.study_id, quiet=quiet, now=now)
    elif job.kind is JobKind.CONCLUDE:
        study = session.get_one(Study, job.study_id)
        study.state, study.reason = StudyState.FAILED, f"conclusion failed: {error}"
    else:
        deliveries.fail(session, job, error=error)
