"""What happens by the clock: one APScheduler process, which holds a lock while it works."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import ColumnElement, exists, select

from clearfilm.config import Config
from clearfilm.files import TEMPORARY_SUFFIX
from clearfilm.process import is_dead
from db import audit, conclusions, operations, queue, reports
from db.models import Analysis, Instance, Job, JobState, Result, Study, StudyState
from db.queue import ClaimedJob
from db.session import Database
from worker import failures
from worker.alerting import Alarm
from worker.policy_clock import PolicyClock
from worker.retraining import Retraining
from worker.store import MAPS, RESULTS

logger = logging.getLogger(__name__)

BACKUPS = "backups"
# A file without a row that is younger may be on its way to one.
ORPHAN_AGE_SECONDS = 3600.0


class Schedule:
    """The node's periodic work; every task can be repeated at any time without harm.

    Parameters
    ----------
    config : Config
        The whole configuration.
    database : Database
        Of this process.
    retraining : Retraining, optional
        What it does about training.
    """

    def __init__(self, config: Config, database: Database, retraining: Retraining | None = None) -> None:
        self._config = config
        self._database = database
        self._retraining = retraining
        self._quiet = timedelta(seconds=config.study.quiet_seconds)
        self._low_on_disk = False
        self._alarm = Alarm(config, database, BACKUPS)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        scheduler.add_listener(_report_trouble, EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        policy = PolicyClock(self._config, self._database)
        tasks: list[tuple[Callable[[], None], timedelta]] = [
            (self.end_exhausted_jobs, timedelta(seconds=5)),
            (self.settle_cancellations, timedelta(seconds=5)),
            (self.watch, timedelta(seconds=30)),
            (self.conclude_forgotten_studies, timedelta(minutes=1)),
            (self.match_reports, timedelta(minutes=1)),
            (policy.return_overdue_studies, timedelta(seconds=10)),
            (policy.guard_by_reports, timedelta(seconds=30)),
            (policy.watch_misses, timedelta(minutes=1)),
            (policy.end_blind_share, timedelta(minutes=1)),
            (self.guard_disk, timedelta(minutes=1)),
            (self.checkpoint, timedelta(minutes=1)),
            (self.delete_orphans, timedelta(hours=1)),
            (self.delete_old_studies, timedelta(hours=1)),
            (self.back_up, timedelta(hours=1)),
        ]
        for task, period in tasks:
            scheduler.add_job(
                task,
                "interval",
                seconds=period.total_seconds(),
                id=task.__name__,
                next_run_time=datetime.now(UTC),
            )
        if self._retraining is not None:
            self._add_retraining(scheduler, self._retraining)
        scheduler.start()
        try:
            stop.wait()
        finally:
            scheduler.shutdown(wait=True)

    def _add_retraining(self, scheduler: BackgroundScheduler, retraining: Retraining) -> None:
        scheduler.add_job(
            retraining.note_dead_runs, "interval", minutes=1, id="note_dead_runs", next_run_time=datetime.now(UTC)
        )
        if self._config.retraining.enabled:
            scheduler.add_job(retraining.resume_retraining, id="resume_retraining")
            scheduler.add_job(retraining.start_retraining, retraining.trigger(), id="start_retraining")

    def end_exhausted_jobs(self) -> None:
        """Jobs of dead workers are free at once; those of a third one fail, with all that follows."""
        with self._database.begin() as session:
            now = self._database.now(session)
            queue.expire_dead(session, is_dead, now=now)
            for job in queue.take_exhausted(session, now=now):
                error = f"the process ended without a result {queue.MAXIMUM_ATTEMPTS} times"
                failures.follow(session, job, error=error, quiet=self._quiet, now=now)

    def settle_cancellations(self) -> None:
        """What an admin cancelled and did not take back shows in its study now."""
        with self._database.begin() as session:
            now = self._database.now(session)

            def follow(job: ClaimedJob, error: str) -> None:
                failures.follow(session, job, error=error, quiet=self._quiet, now=now)

            operations.settle_cancelled(session, follow, now=now)

    def watch(self) -> None:
        """Alerts: look, open, close, send."""
        self._alarm.turn()

    def conclude_forgotten_studies(self) -> None:
        """A net below the queue: no finished study stays without a conclusion."""
        with self._database.begin() as session:
            now = self._database.now(session)
            for study_id in conclusions.forgotten(session):
                logger.warning("study had no conclusion queued", extra={"study_id": study_id})
                conclusions.request(session, study_id, quiet=self._quiet, now=now)

    def match_reports(self) -> None:
        """Radiologists' reports that came before their study find it."""
        with self._database.begin() as session:
            matches = reports.match_waiting(session)
        if matches.matched:
            logger.info("reports matched", extra={"matched": matches.matched, "waiting": matches.waiting})

    def guard_disk(self) -> None:
        """Tell in the log when free space goes below the low-water mark, and when it is back."""
        usage = shutil.disk_usage(self._config.data_folder)
        low = usage.free < self._config.disk.low_water(usage.total)
        if low != self._low_on_disk:
            log = logger.error if low else logger.info
            log("disk is low: films are refused" if low else "disk has room again", extra={"free": usage.free})
        self._low_on_disk = low

    def checkpoint(self) -> None:
        """Empty SQLite's write-ahead log."""
        self._database.checkpoint()

    def delete_orphans(self) -> None:
        """Delete files that a crash left without a row."""
        with self._database.read() as session:
            known = set(session.scalars(select(Analysis.map_path))) | set(session.scalars(select(Result.path)))
        for folder in (MAPS, RESULTS):
            for path in (self._config.data_folder / folder).glob("*/*"):
                relative = str(path.relative_to(self._config.data_folder))
                if relative in known or time.time() - path.stat().st_mtime < ORPHAN_AGE_SECONDS:
                    continue
                path.unlink(missing_ok=True)
                logger.warning("file without a row deleted", extra={"path": relative})

    def delete_old_studies(self) -> None:
        """Retention: concluded studies whose results are all at their end, by time of reception."""
        if not self._config.retention.days:
            return
        limit = datetime.now(UTC) - timedelta(days=self._config.retention.days)
        with self._database.read() as session:
            old = session.scalars(select(Study.id).where(*_deletable(limit))).all()
        for study_id in old:
            self._delete_study(study_id, limit)

    def _delete_study(self, study_id: int, limit: datetime) -> None:
        """Delete one study, unless something has happened to it since it was chosen.

        Films get the ending of unfinished files before the rows are gone for good: after a crash between,
        the listener removes them at its start instead of taking them for films without rows.
        """
        of_study = select(Instance.id).where(Instance.study_id == study_id)
        with self._database.begin() as session:
            locked = select(Study).where(Study.id == study_id, *_deletable(limit)).with_for_update()
            study = session.scalars(locked).one_or_none()
            if study is None:
                return
            films = self._paths(session.scalars(select(Instance.path).where(Instance.study_id == study_id)))
            maps = select(Analysis.map_path).where(Analysis.instance_id.in_(of_study), Analysis.map_path.is_not(None))
            others = self._paths(path for path in session.scalars(maps) if path)
            others += self._paths(session.scalars(select(Result.path).where(Result.study_id == study_id)))
            session.delete(study)
            audit.record(
                session,
                "study deleted by retention",
                actor="schedule",
                now=self._database.now(session),
                study_id=study_id,
                files=len(films) + len(others),
            )
            doomed = [film.rename(film.with_name(film.name + TEMPORARY_SUFFIX)) for film in films if film.exists()]
        for path in (*doomed, *others):
            path.unlink(missing_ok=True)

    def _paths(self, relative: Iterable[str]) -> list[Path]:
        return [self._config.data_folder / path for path in relative]

    def back_up(self) -> None:
        """One consistent copy of the SQLite database a day; the oldest go."""
        keep = self._config.database.backups
        if not keep or not self._database.is_sqlite:
            return
        folder = self._config.data_folder / BACKUPS
        folder.mkdir(mode=0o700, exist_ok=True)
        target = folder / f"clearfilm-{datetime.now(UTC):%Y-%m-%d}.sqlite"
        if not target.exists():
            partial = target.with_name(target.name + TEMPORARY_SUFFIX)
            partial.unlink(missing_ok=True)
            self._database.backup(partial)
            partial.rename(target)
            logger.info("database backed up", extra={"file": target.name})
        for old in sorted(folder.glob("clearfilm-*.sqlite"))[:-keep]:
            old.unlink()


def _deletable(limit: datetime) -> tuple[ColumnElement[bool], ...]:
    """Concluded, nothing waiting, running or failed, and no film received since `limit`."""
    unfinished = exists().where(
        Job.study_id == Study.id, Job.state.in_([JobState.QUEUED, JobState.RUNNING, JobState.FAILED])
    )
    return Study.last_received_at < limit, Study.state == StudyState.CONCLUDED, ~unfinished


def _report_trouble(event: JobExecutionEvent) -> None:
    """APScheduler keeps exceptions to itself otherwise."""
    trouble = getattr(event, "exception", None)
    logger.error("scheduled task failed or was missed", extra={"task": event.job_id}, exc_info=trouble)
