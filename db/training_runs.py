"""Training runs as the node remembers them, also those that died without a word."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import audit
from db.governance import RunOutcome, TrainingRun

DIED = "the process ended without a word; go on with --resume"


def begin(
    session: Session,
    *,
    folder: str,
    cohort_digest: str,
    cohort_folder: str,
    cohort: dict[str, Any],
    settings: dict[str, Any],
    started_by: str,
    owner: str,
    now: datetime,
) -> TrainingRun:
    """Note that a run begins, or goes on.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    folder : str
        Absolute; the same folder is the same run.
    cohort_digest, cohort_folder, cohort
        Version, place and counts of the cohort.
    settings : dict
        Section `training` as used.
    started_by : str
        A user, or the schedule.
    owner : str
        Process, see `clearfilm.process.process_name`.
    now : datetime
        Aware UTC.
    """
    run = find(session, folder)
    if run is None or run.cohort_digest != cohort_digest:
        if run is not None:  # the folder was emptied and used again
            session.delete(run)
            session.flush()
        run = TrainingRun(
            folder=folder,
            cohort_digest=cohort_digest,
            cohort_folder=cohort_folder,
            cohort=cohort,
            settings=settings,
            started_by=started_by,
            started_at=now,
        )
        session.add(run)
    run.owner, run.outcome, run.ended_at, run.detail = owner, RunOutcome.RUNNING, None, None
    audit.record(session, "training started", actor=started_by, now=now, folder=folder, cohort=cohort_digest)
    session.flush()
    return run


def end(
    session: Session,
    run_id: int,
    outcome: RunOutcome,
    *,
    now: datetime,
    detail: str | None = None,
    bundle_digest: str | None = None,
) -> None:
    """Note how a run ended. The caller commits."""
    run = session.get(TrainingRun, run_id)
    if run is None:
        return
    run.outcome, run.ended_at, run.detail, run.bundle_digest = outcome, now, detail, bundle_digest
    audit.record(
        session, f"training {outcome.value}", actor=run.started_by, now=now, folder=run.folder, bundle=bundle_digest
    )


def note_dead(session: Session, is_dead: Callable[[str], bool], *, now: datetime) -> list[str]:
    """Runs whose process is gone have died.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    is_dead : callable
        Whether an owner's process is gone.
    now : datetime
        Aware UTC.

    Returns
    -------
    list of str
        Their folders.
    """
    running = session.scalars(select(TrainingRun).where(TrainingRun.outcome == RunOutcome.RUNNING)).all()
    dead = [run for run in running if is_dead(run.owner)]
    for run in dead:
        end(session, run.id, RunOutcome.DIED, now=now, detail=DIED)
    return [run.folder for run in dead]


def find(session: Session, folder: str) -> TrainingRun | None:
    """The run of a folder."""
    return session.scalars(select(TrainingRun).where(TrainingRun.folder == folder)).one_or_none()


def of_bundle(session: Session, digest: str) -> TrainingRun | None:
    """The latest run that made a bundle."""
    return session.scalars(
        select(TrainingRun).where(TrainingRun.bundle_digest == digest).order_by(TrainingRun.id.desc()).limit(1)
    ).first()


def known(session: Session) -> list[TrainingRun]:
    """All runs, newest first."""
    return list(session.scalars(select(TrainingRun).order_by(TrainingRun.started_at.desc(), TrainingRun.id.desc())))
