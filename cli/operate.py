"""`clearfilm resend` and `clearfilm retry`."""

import getpass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from clearfilm.errors import ClearfilmError, ConfigurationError
from cli.node import opened
from cli.terminal import say
from db import audit, deliveries, queue
from db.models import Instance, InstanceState, JobKind, Study, StudyState


def resend_study(config_path: Path, uid: str, to: list[str] | None) -> None:
    """Queue a study's results for sending again."""
    with opened(config_path) as (config, database), database.begin() as session:
        known = [destination.name for destination in config.destinations]
        unknown = sorted(set(to or ()) - set(known))
        if unknown:
            raise ConfigurationError(f"no destination is called {', '.join(unknown)}; there are: {', '.join(known)}")
        count = deliveries.resend(
            session,
            _find(session, uid),
            to or known,
            actor=getpass.getuser(),
            now=database.now(session),
        )
    say(f"{count} results wait for sending")


def retry_study(config_path: Path, uid: str) -> None:
    """Queue everything of a study that failed."""
    with opened(config_path) as (config, database), database.begin() as session:
        now = database.now(session)
        study = _find(session, uid)
        films = _retry_films(session, study, now)
        if not films and study.state is StudyState.FAILED:
            queue.request_conclusion(session, study.id, run_after=now, priority=study.priority, now=now)
        names = [destination.name for destination in config.destinations]
        sent = deliveries.retry(session, study, names, now=now)
        if study.state is StudyState.FAILED:
            study.state = StudyState.OPEN
        audit.record(session, "tried again", actor=getpass.getuser(), now=now, study_id=study.id)
    say(f"{films} films and {sent} deliveries wait again")


def _retry_films(session: Session, study: Study, now: datetime) -> int:
    failed = session.scalars(
        select(Instance).where(Instance.study_id == study.id, Instance.state == InstanceState.FAILED)
    ).all()
    for instance in failed:
        instance.state, instance.reason = InstanceState.QUEUED, None
        study.state = StudyState.OPEN
        queue.add(
            session,
            JobKind.ANALYSE,
            study_id=study.id,
            instance_id=instance.id,
            priority=study.priority,
            now=now,
        )
    return len(failed)


def _find(session: Session, uid: str) -> Study:
    study = session.scalars(select(Study).where(Study.study_instance_uid == uid)).one_or_none()
    if study is None:
        raise ClearfilmError(f"no study has the UID {uid}")
    return study
