"""Job kind `deliver`: frozen objects to a destination by C-STORE, Secondary Captures before reports."""

import logging
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
)

from clearfilm.config import Destination
from clearfilm.crashpoints import crash_point
from clearfilm.dicom import scu
from clearfilm.errors import DeliveryError, LostLease, PeerUnreachable
from clearfilm.process import process_name
from db import deliveries, queue
from db.deliveries import Parcel
from db.models import DeliveryState, JobKind, ResultKind
from db.queue import ClaimedJob
from db.session import Database
from worker import failures
from worker.leases import Leases
from worker.store import Store

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
IDLE_RELEASE_SECONDS = 2.0
FIRST_BACKOFF = timedelta(seconds=5)
LONGEST_BACKOFF = timedelta(minutes=15)
# The report goes out in the first of these that the destination accepts: the same content in each.
REPORT_PREFERENCE = tuple(map(str, (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)))
RESULT_CLASSES = (str(SecondaryCaptureImageStorage), *REPORT_PREFERENCE)


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
        self._stack = ExitStack()
        self._association: Association | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the delivery under way is finished first."""
        idle = 0.0
        with self._stack:
            while not stop.is_set():
                job = self._claim()
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
                    stop.wait(self._backoff(self._unreachable - 1).total_seconds())

    def _claim(self) -> ClaimedJob | None:
        with self._database.begin() as session:
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
        assert job.revision is not None
        with self._database.read() as session:
            parcels = deliveries.parcels(session, job.study_id, job.revision, self._destination.name)
        waiting = [parcel for parcel in parcels if parcel.state is DeliveryState.WAITING]
        sent = [p for p in parcels if p.state in (DeliveryState.SENT, DeliveryState.COMMITTED)]
        if waiting:
            association = self._call()
            chosen = self._choose(association, waiting, sent)
            for parcel in chosen:
                self._send(association, parcel)
            self._pass_over([parcel for parcel in waiting if parcel not in chosen])
        with self._database.begin() as session:
            queue.finish(session, job, now=self._database.now(session))
        logger.info(
            "results delivered",
            extra={"job_id": job.id, "study_id": job.study_id, "destination": self._destination.name},
        )

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

    def _choose(self, association: Association, waiting: list[Parcel], sent: list[Parcel]) -> list[Parcel]:
        """The captures, and of the report's IODs the first that the peer accepts and has not got yet."""
        reports = {parcel.sop_class_uid: parcel for parcel in waiting if parcel.kind is ResultKind.REPORT}
        captures = [parcel for parcel in waiting if parcel.kind is not ResultKind.REPORT]
        if any(parcel.kind is ResultKind.REPORT for parcel in sent):
            return captures
        accepted = scu.accepted(association)
        chosen = next((reports[uid] for uid in REPORT_PREFERENCE if uid in reports and uid in accepted), None)
        if chosen is None and reports:
            # Sending the first of them gives the refusal that is counted and shown.
            chosen = reports[next(uid for uid in REPORT_PREFERENCE if uid in reports)]
        return [*captures, chosen] if chosen else captures

    def _send(self, association: Association, parcel: Parcel) -> None:
        status = scu.store(association, self._peer, self._store.path(parcel.path))
        crash_point("stored-at-peer-before-commit")
        with self._database.begin() as session:
            now = self._database.now(session)
            deliveries.set_sent(session, parcel.delivery_id, status=status, now=now)

    def _pass_over(self, parcels: list[Parcel]) -> None:
        """The report has gone out in another IOD than these."""
        if parcels:
            with self._database.begin() as session:
                deliveries.set_not_chosen(session, [parcel.delivery_id for parcel in parcels])

    def _postpone(self, job: ClaimedJob, error: DeliveryError) -> None:
        """Another try later, until the destination has been away for too long or has refused for good."""
        wait = self._backoff(job.retries)
        with self._database.begin() as session:
            now = self._database.now(session)
            refused = deliveries.record_failure(
                session, job, status=error.status, error=str(error), permanent=not error.retryable
            )
            ends = refused or now - job.created_at > timedelta(hours=self._destination.retry_hours)
            if ends:
                queue.fail(session, job, error=str(error), now=now)
                deliveries.fail(session, job, error=str(error))
            else:
                queue.postpone(session, job, run_after=now + wait, error=str(error))
        logger.warning(
            "delivery failed" if ends else "delivery postponed",
            extra={"job_id": job.id, "destination": self._destination.name, "error": str(error)},
        )
