"""Storage commitment: have each destination take responsibility for what it stored (PS3.4 J).

Requests go out on associations of their own. On one that also carries C-STORE, the destination's report
may arrive where pynetdicom waits for the answer to a C-STORE, and would end the association.
"""

import logging
import threading
import time
from datetime import timedelta

from pydicom.uid import generate_uid
from pynetdicom import evt
from sqlalchemy.exc import SQLAlchemyError

from clearfilm.config import Destination
from clearfilm.dicom import scu
from clearfilm.dicom.commitment import CommitmentReport, report_handler
from clearfilm.errors import DeliveryError, PeerBusy
from db import deliveries, switches
from db.session import Database
from db.switches import Stage
from worker.deliver import peer_of

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
# A report that takes longer comes on an association that the destination opens (see storescp).
REPORT_SECONDS = 10.0
# Silence is no failure: the request is repeated, until nobody may expect an answer any more.
SILENCE = timedelta(hours=1)
UNREACHABLE_PAUSE_SECONDS = 30.0
NOT_OFFERED_PAUSE_SECONDS = 600.0
MOST_OBJECTS = 500


class Notary:
    """Asks one destination for storage commitment, for everything that was sent since the last request.

    Parameters
    ----------
    destination : Destination
        Whom to ask.
    calling_ae_title : str
        Our title.
    database : Database
        Of this process.
    """

    def __init__(self, destination: Destination, calling_ae_title: str, database: Database) -> None:
        self._destination = destination
        self._title = calling_ae_title
        self._peer = peer_of(destination)
        self._database = database
        self._reported = threading.Event()
        self._quiet_until = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        while not stop.wait(POLL_SECONDS):
            if time.monotonic() < self._quiet_until:
                continue
            try:
                self._request()
            except (DeliveryError, SQLAlchemyError) as error:
                self._quiet_until = time.monotonic() + UNREACHABLE_PAUSE_SECONDS
                logger.warning(
                    "storage commitment not requested",
                    extra={"destination": self._destination.name, "error": str(error)},
                )

    def _request(self) -> None:
        longest = timedelta(hours=self._destination.retry_hours)
        with self._database.read() as session:
            if switches.is_paused(session, Stage.SEND):
                return
            sent = deliveries.uncommitted(
                session,
                self._destination.name,
                now=self._database.now(session),
                silence=SILENCE,
                longest=longest,
                limit=MOST_OBJECTS,
            )
        if not sent:
            return
        self._reported.clear()
        handlers = [(evt.EVT_N_EVENT_REPORT, report_handler(self._keep))]
        with scu.associate(self._title, self._peer, [], commitment=True, handlers=handlers) as association:
            if not scu.offers_commitment(association):
                logger.info("no storage commitment offered", extra={"destination": self._destination.name})
                self._quiet_until = time.monotonic() + NOT_OFFERED_PAUSE_SECONDS
                return
            transaction = generate_uid(prefix=None)
            # Committed first: the report may come before the answer to the request.
            with self._database.begin() as session:
                ids = [parcel.delivery_id for parcel in sent]
                now = self._database.now(session)
                deliveries.set_commitment_requested(session, ids, transaction, now=now)
            names = [(parcel.sop_class_uid, parcel.sop_instance_uid) for parcel in sent]
            try:
                scu.request_commitment(association, transaction, names)
            except PeerBusy:
                with self._database.begin() as session:
                    deliveries.forget_commitment_request(session, transaction)
                raise
            self._reported.wait(REPORT_SECONDS)

    def _keep(self, report: CommitmentReport) -> None:
        with self._database.begin() as session:
            deliveries.record_commitment(session, report, now=self._database.now(session))
        self._reported.set()
