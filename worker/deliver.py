"""Job kind `deliver`: frozen objects to a destination by C-STORE, Secondary Captures before reports."""

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

from pynetdicom.association import Association

from clearfilm import metrics
from clearfilm.config import Destination
from clearfilm.crashpoints import crash_point
from clearfilm.dicom import scu
from clearfilm.dicom.rehearsal import REPORT_PREFERENCE, RESULT_CLASSES
from clearfilm.errors import DeliveryError, LostLease, PeerRefused, PeerUnreachable
from clearfilm.process import process_name
from db import deliveries, peer_checks, queue, switches
from db.deliveries import Parcel
from db.models import DeliveryState, JobKind, ResultKind
from db.queue import ClaimedJob
from db.session import Database
from db.switches import Stage
from worker import failures
from worker.leases import Leases, patiently
from worker.store import Store

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
IDLE_RELEASE_SECONDS = 2.0
REST_POLL_SECONDS = 1.0
FIRST_BACKOFF = timedelta(seconds=5)
LONGEST_BACKOFF = timedelta(minutes=15)


def backoff(retries: int) -> timedelta:
    """Waiting time before another try: doubled each time, capped, with up to a quarter of jitter.

    Parameters
    ----------
    retries : int
        Tries so far, from 0.
    """
    doubled = FIRST_BACKOFF * 2 ** min(retries, 16)
    return min(doubled, LONGEST_BACKOFF) * random.uniform(1, 1.25)  # noqa: S311 - no secret


def peer_of(destination: Destination) -> scu.Peer:
    """A configured destination as the application entity to call."""
    return scu.Peer(
        destination.ae_title,
        destination.host,
        destination.port,
        destination.connect_timeout_seconds,
        destination.timeout_seconds,
    )


class Courier:
    """Brings results to one destination, one association at a time.

    After an unreachable peer the courier claims nothing until the backoff is over (circuit breaker), so
    that a dead PACS costs one connection try at a time however many results wait for it.

    Parameters
    ----------
    destination : Destination
        Where to.
    calling_ae_title : str
        Our title.
    database, store, leases
        Of this process.
    backoff : callable
        Waiting time by number of tries so far.
    """

    def __init__(
        self,
        destination: Destination,
        calling_ae_title: str,
        database: Database,
        store: Store,
        leases: Leases,
        backoff: Callable[[int], timedelta] = backoff,
    ) -> None:
        self._backoff = backoff
        self._destination = destination
        self._title = calling_ae_title
        self._peer = peer_of(destination)
        self._database = database
        self._store = store
        self._leases = leases
        self._owner = process_name()
        self._unreachable = 0  # in a row
        self._answered = 0  # number of the newest try that was answered when we last failed
        self._stack = ExitStack()
        self._association: Association | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the delivery under way is finished first."""
        idle = 0.0
        with self._stack:
            while not stop.is_set():
                job = patiently(self._claim, stop)
                if job is None:
                    stop.wait(POLL_SECONDS)
                    idle += POLL_SECONDS
                    if idle >= IDLE_RELEASE_SECONDS:
                        self._hang_up()
                    continue
                idle = 0.0
                self._leases.hold(job)
                try:
                    self._run_job(job)
                finally:
                    self._leases.release(job)
                if self._unreachable:
                    self._rest(stop)

    def _rest(self, stop: threading.Event) -> None:
        """Leave an unreachable destination alone, until a try by an administrator shows that it is back."""
        end = time.monotonic() + self._backoff(self._unreachable - 1).total_seconds()
        while (left := end - time.monotonic()) > 0 and not stop.wait(min(left, REST_POLL_SECONDS)):
            if patiently(self._newest_answer, stop) not in (None, self._answered):
                return

    def _newest_answer(self) -> int:
        with self._database.read() as session:
            return peer_checks.newest_answer(session, self._destination.name)

    def _claim(self) -> ClaimedJob | None:
        with self._database.begin() as session:
            if switches.is_paused(session, Stage.SEND):
                return None
            return queue.claim(
                session,
                JobKind.DELIVER,
                destination=self._destination.name,
                owner=self._owner,
                now=self._database.now(session),
            )

    def _run_job(self, job: ClaimedJob) -> None:
        """The edge around one job: whatever happens, it ends, waits, or fails visibly."""
        try:
            self._deliver(job)
        except LostLease:
            logger.warning("lease lost", extra={"job_id": job.id})
        except DeliveryError as error:
            self._hang_up()
            self._postpone(job, error)
        except Exception as error:
            logger.exception("delivery failed", extra={"job_id": job.id})
            self._hang_up()
            failures.strike(self._database, job, error, retry=FIRST_BACKOFF, quiet=timedelta(0))

    def _deliver(self, job: ClaimedJob) -> None:
        """Send what waits, captures first. What is refused holds nothing else back; a busy peer stops all."""
        parcels = self._parcels(job)
        refusal: PeerRefused | None = None
        if any(parcel.state is DeliveryState.WAITING for parcel in parcels):
            association = self._call()
            for parcel in self._in_order(association, parcels):
                if self._end_if_superseded(job):
                    return
                try:
                    self._send(association, parcel)
                except PeerRefused as error:
                    refusal = error
                else:
                    if parcel.kind is ResultKind.REPORT:
                        break
        parcels = self._pass_over_alternatives(self._parcels(job))
        states = {parcel.state for parcel in parcels}
        if refusal is not None and DeliveryState.WAITING in states:
            raise refusal
        with self._database.begin() as session:
            now = self._database.now(session)
            if refusal is not None and DeliveryState.FAILED in states:
                queue.fail(session, job, error=str(refusal), now=now)
            else:
                queue.finish(session, job, now=now)
        logger.info(
            "delivery failed" if DeliveryState.FAILED in states else "results delivered",
            extra={"job_id": job.id, "study_id": job.study_id, "destination": self._destination.name},
        )

    def _parcels(self, job: ClaimedJob) -> list[Parcel]:
        assert job.revision is not None
        with self._database.read() as session:
            return deliveries.parcels(session, job.study_id, job.revision, self._destination.name)

    def _end_if_superseded(self, job: ClaimedJob) -> bool:
        """An older conclusion must not arrive after a newer one."""
        with self._database.begin() as session:
            if not deliveries.is_superseded(session, job):
                return False
            deliveries.supersede(session, job)
            queue.finish(session, job, now=self._database.now(session))
        logger.info("results superseded", extra={"job_id": job.id, "study_id": job.study_id})
        return True

    def _call(self) -> Association:
        """The open association, or a new one."""
        if self._association is not None and self._association.is_established:
            return self._association
        self._hang_up()
        try:
            self._association = self._stack.enter_context(
                scu.associate(
                    self._title,
                    self._peer,
                    [context for uid in RESULT_CLASSES for context in scu.storage_contexts(uid)],
                )
            )
        except PeerUnreachable:
            metrics.SENDS.labels(self._destination.name, "unreachable").inc()
            self._unreachable += 1
            raise
        if self._unreachable:
            logger.info("destination answers again", extra={"destination": self._destination.name})
            with self._database.begin() as session:
                deliveries.wake(session, self._destination.name, now=self._database.now(session))
        self._unreachable = 0
        return self._association

    def _hang_up(self) -> None:
        self._association = None
        self._stack.close()

    def _in_order(self, association: Association, parcels: list[Parcel]) -> list[Parcel]:
        """What waits: captures, then the report's IODs, those first that the peer accepts; one of them will do."""
        accepted = scu.accepted(association)
        waiting = [parcel for parcel in parcels if parcel.state is DeliveryState.WAITING]
        captures = [parcel for parcel in waiting if parcel.kind is not ResultKind.REPORT]
        reports = [parcel for parcel in waiting if parcel.kind is ResultKind.REPORT]
        if any(_is_sent_report(parcel) for parcel in parcels):
            return captures
        reports.sort(key=lambda p: (p.sop_class_uid not in accepted, REPORT_PREFERENCE.index(p.sop_class_uid)))
        return [*captures, *reports]

    def _send(self, association: Association, parcel: Parcel) -> None:
        try:
            status = scu.store(association, self._peer, self._store.path(parcel.path))
        except DeliveryError as error:
            metrics.SENDS.labels(self._destination.name, "busy" if error.retryable else "refused").inc()
            write_down = deliveries.set_busy if error.retryable else deliveries.set_refused
            with self._database.begin() as session:
                write_down(session, parcel.delivery_id, status=error.status, error=str(error))
            raise
        crash_point("stored-at-peer-before-commit")
        with self._database.begin() as session:
            now = self._database.now(session)
            deliveries.set_sent(session, parcel.delivery_id, status=status, now=now)
        metrics.SENDS.labels(self._destination.name, "stored").inc()

    def _pass_over_alternatives(self, parcels: list[Parcel]) -> list[Parcel]:
        """When the report has gone out in one IOD, the others are not needed; gives what is."""
        if not any(_is_sent_report(parcel) for parcel in parcels):
            return parcels
        unneeded = [p for p in parcels if p.kind is ResultKind.REPORT and p.state is DeliveryState.WAITING]
        if unneeded:
            with self._database.begin() as session:
                deliveries.set_not_chosen(session, [parcel.delivery_id for parcel in unneeded])
        return [parcel for parcel in parcels if parcel not in unneeded]

    def _postpone(self, job: ClaimedJob, error: DeliveryError) -> None:
        """Another try later, until the destination has been away for too long."""
        wait = self._backoff(job.retries)
        try:
            with self._database.begin() as session:
                now = self._database.now(session)
                expired = now - job.created_at > timedelta(hours=self._destination.retry_hours)
                if expired:
                    queue.fail(session, job, error=str(error), now=now)
                    deliveries.fail(session, job, error=str(error))
                else:
                    queue.postpone(session, job, run_after=now + wait, error=str(error))
                    deliveries.note(session, job, error=str(error))
                self._answered = peer_checks.newest_answer(session, self._destination.name)
        except LostLease:
            logger.warning("lease lost", extra={"job_id": job.id})
            return
        logger.warning(
            "delivery failed" if expired else "delivery postponed",
            extra={"job_id": job.id, "destination": self._destination.name, "error": str(error)},
        )


def _is_sent_report(parcel: Parcel) -> bool:
    return parcel.kind is ResultKind.REPORT and parcel.state in (DeliveryState.SENT, DeliveryState.COMMITTED)
