"""`clearfilm resend` and `clearfilm retry`."""

import getpass
from pathlib import Path

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from clearfilm.config import Config
from clearfilm.counts import counted
from clearfilm.errors import ClearfilmError, UsageError
from cli.node import opened
from cli.terminal import say
from db import deliveries, operations
from db.models import Delivery, DeliveryState, Instance, InstanceState, Result, Study, StudyState


def resend_study(config_path: Path, uid: str, to: list[str] | None) -> None:
    """Queue a study's results for sending again."""
    with opened(config_path) as (config, database), database.begin() as session:
        known = _destinations(config)
        unknown = sorted(set(to or ()) - set(known))
        if unknown:
            raise UsageError(f"no destination is called {', '.join(unknown)}; there are: {', '.join(known)}")
        count = deliveries.resend(
            session,
            _find(session, uid),
            to or known,
            actor=getpass.getuser(),
            now=database.now(session),
        )
    say(f"{counted(count, 'result')} {'waits' if count == 1 else 'wait'} for sending")


def retry_study(config_path: Path, uid: str) -> None:
    """Queue everything of a study that failed."""
    with opened(config_path) as (config, database), database.begin() as session:
        films, sent = operations.retry_study(
            session, _find(session, uid), _destinations(config), actor=getpass.getuser(), now=database.now(session)
        )
    say(f"{counted(films, 'film')} and {counted(sent, 'delivery', 'deliveries')} wait again")


def retry_all(config_path: Path) -> None:
    """Queue everything that failed, of whatever study."""
    films = sent = 0
    with opened(config_path) as (config, database):
        with database.read() as session:
            studies = session.scalars(_with_failures(config)).all()
        for study_id in studies:  # one transaction each: the node goes on writing in between
            with database.begin() as session:
                study = session.get(Study, study_id)
                if study is None:  # deleted in the meantime
                    continue
                more_films, more_sent = operations.retry_study(
                    session, study, _destinations(config), actor=getpass.getuser(), now=database.now(session)
                )
                films, sent = films + more_films, sent + more_sent
    number = counted(len(studies), "study", "studies")
    say(f"{number}: {counted(films, 'film')} and {counted(sent, 'delivery', 'deliveries')} wait again")


def _with_failures(config: Config) -> Select[int]:
    """Numbers of the studies of which something failed that a retry can mend."""
    films = select(Instance.study_id).where(Instance.state == InstanceState.FAILED)
    unsent = (
        select(Result.study_id)
        .join(Delivery, Delivery.result_id == Result.id)
        .join(Study, Study.id == Result.study_id)
        .where(
            Delivery.state == DeliveryState.FAILED,
            Delivery.destination.in_(_destinations(config)),
            Result.revision == Study.revision,
        )
    )
    return (
        select(Study.id)
        .where(or_(Study.state == StudyState.FAILED, Study.id.in_(films), Study.id.in_(unsent)))
        .order_by(Study.id)
    )


def _destinations(config: Config) -> list[str]:
    return [destination.name for destination in config.destinations]


def _find(session: Session, uid: str) -> Study:
    study = session.scalars(select(Study).where(Study.study_instance_uid == uid)).one_or_none()
    if study is None:
        raise ClearfilmError(f"no study has the UID {uid}")
    return study
