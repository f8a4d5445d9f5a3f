"""Retraining by the clock: starts `clearfilm retrain` as a child process, and goes on with one that was interrupted.

This process never imports the training code; the child has the lowest priority and ends with this process.
"""

import logging
import subprocess
import threading
from pathlib import Path
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clearfilm.children import command
from clearfilm.config import Config
from clearfilm.process import is_dead
from clearfilm.retraining import FOLDER, LOG, unfinished
from db import training_runs
from db.governance import RunOutcome, TrainingRun
from db.models import Instance, InstanceState, Report
from db.session import Database

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0


class Retraining:
    """What the schedule does about training.

    Parameters
    ----------
    config : Config
        Section `retraining`, and the data folder.
    config_path : pathlib.Path
        For the child.
    database : Database
        Of this process.
    stop : threading.Event
        Ends the child; it is gone on with after the next start.
    """

    def __init__(self, config: Config, config_path: Path, database: Database, stop: threading.Event) -> None:
        self._settings = config.retraining
        self._root = config.data_folder / FOLDER
        self._config_path = config_path
        self._database = database
        self._stop = stop

    def trigger(self) -> CronTrigger:
        """When the clock starts one. A crontab's trigger does not know the scheduler's time zone."""
        return CronTrigger.from_crontab(self._settings.cron, timezone=ZoneInfo(self._settings.time_zone))

    def note_dead_runs(self) -> None:
        """Trainings whose process is gone have died."""
        with self._database.begin() as session:
            dead = training_runs.note_dead(session, is_dead, now=self._database.now(session))
        for folder in dead:
            logger.warning("training died", extra={"folder": folder})

    def start_retraining(self) -> None:
        """One retraining, if there are enough new films with a report; before it one that was interrupted."""
        if unfinished(self._root) is not None:
            self._run(["--resume"])
            return
        with self._database.read() as session:
            found = new_films(session)
        if found < self._settings.minimum_new_films:
            wanted = self._settings.minimum_new_films
            logger.info("retraining not worthwhile yet", extra={"new_films": found, "wanted": wanted})
            return
        self._run([])

    def resume_retraining(self) -> None:
        """Go on with one that a stop of the node or a crash has interrupted."""
        if unfinished(self._root) is not None:
            self._run(["--resume"])

    def _run(self, arguments: list[str]) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._root / LOG).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [*command("cli.main"), "retrain", "--scheduled", "--config", str(self._config_path), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            logger.info("retraining runs", extra={"pid": process.pid})
            while process.poll() is None:
                if self._stop.wait(POLL_SECONDS):
                    process.terminate()
                    process.wait()
                    return
        log_end = logger.info if process.returncode == 0 else logger.error
        log_end("retraining ended", extra={"exit_code": process.returncode, "log": str(self._root / LOG)})


def new_films(session: Session) -> int:
    """Analysed films whose report came after the last finished training began."""
    last = session.scalar(select(func.max(TrainingRun.started_at)).where(TrainingRun.outcome == RunOutcome.FINISHED))
    films = (
        select(func.count(func.distinct(Instance.id)))
        .join(Report, Report.study_id == Instance.study_id)
        .where(Instance.state == InstanceState.ANALYSED, Report.superseded_by.is_(None))
    )
    if last is not None:
        films = films.where(Report.received_at > last)
    return session.scalar(films) or 0
