"""What time does to the triage policy: studies return, the alarm steps it down, blind ones are told afterwards."""

import logging
from datetime import timedelta

from clearfilm.config import Config
from db import audit, deliveries, placements, policies
from db.session import Database

logger = logging.getLogger(__name__)


class PolicyClock:
    """Tasks of the schedule; each can be repeated at any time without harm.

    Parameters
    ----------
    config : Config
        Sections `policy` and `destinations` are used.
    database : Database
        Of this process.
    """

    def __init__(self, config: Config, database: Database) -> None:
        self._policy = config.policy
        self._blind = timedelta(days=config.policy.blind_days)
        self._destinations = [destination.name for destination in config.destinations]
        self._database = database

    def return_overdue_studies(self) -> None:
        """Studies whose longest wait is over are back at their usual place."""
        with self._database.begin() as session:
            now = self._database.now(session)
            studies = placements.return_overdue(session, now=now)
            for study_id in studies:
                audit.record(
                    session, "study returned after its longest wait", actor="schedule", now=now, study_id=study_id
                )
        for study_id in studies:
            logger.info("study returned after its longest wait", extra={"study_id": study_id})

    def guard_by_reports(self) -> None:
        """Studies whose patient turns out to have an earlier report with a finding are back at their usual place."""
        with self._database.begin() as session:
            now = self._database.now(session)
            studies = policies.guard_by_reports(session, now=now)
            for study_id in studies:
                audit.record(session, "study put back by a report", actor="schedule", now=now, study_id=study_id)
        for study_id in studies:
            logger.info("study put back by an earlier report", extra={"study_id": study_id})

    def watch_misses(self) -> None:
        """Step down to shadow when the reports say that too much was missed."""
        with self._database.read() as session:
            found = policies.assessment(session, self._policy, now=self._database.now(session))
        if found is None or found.alarm is None:
            return
        with self._database.begin() as session:
            after = policies.step_down(session, self._policy, found.alarm, now=self._database.now(session))
        if after is not None:
            logger.error("policy stepped down by the alarm", extra={"stage": after.stage, "alarm": found.alarm})

    def end_blind_share(self) -> None:
        """What was withheld from readers is shown and sent once the report is there, or after the longest time."""
        with self._database.begin() as session:
            if not policies.in_force(session, self._policy).standing.stage.shows:
                return
            now = self._database.now(session)
            for study_id in placements.end_blind(session, received_before=now - self._blind, now=now):
                audit.record(
                    session, "blind study shown after its longest time", actor="schedule", now=now, study_id=study_id
                )
            told = placements.blind_and_told(session)
            for study in told:
                deliveries.resend(session, study, self._destinations, actor="schedule", now=now)
        for study in told:
            logger.info("blind study told, results sent", extra={"study_id": study.id})
