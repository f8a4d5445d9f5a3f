"""What an admin changes while the listener runs, and what the listener tells of its callers.

One thread reads pauses and trusted senders, and writes the log of associations: nothing here is on the way of a film.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from clearfilm.config import Sender
from clearfilm.errors import ClearfilmError
from db import associations, switches
from db.associations import Call, TrustedSender
from db.session import Database
from db.switches import Stage
from storescp.policy import Policy

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
# A flood of titles from one place becomes one entry.
_MOST_KEYS = 200


class Steering:
    """Pauses and trusted senders as they were a second ago, and the log of associations.

    Parameters
    ----------
    database : Database
    policy : Policy
        Gets the trusted senders.
    """

    def __init__(self, database: Database, policy: Policy) -> None:
        self._database = database
        self._policy = policy
        self._calls: dict[tuple[object, ...], tuple[Call, datetime]] = {}
        self._lock = threading.Lock()
        self._failing = False
        self.receive_paused = False

    def note(self, call: Call) -> None:
        """Log an association, soon."""
        with self._lock:
            if call.key not in self._calls and len(self._calls) >= _MOST_KEYS:
                call.calling_ae_title, call.called_ae_title, call.address = "(many)", "(many)", "(many)"
            known, last_at = self._calls.setdefault(call.key, (call, call.at))
            if known is not call:
                known.add(call)
                self._calls[call.key] = (known, max(last_at, datetime.now(UTC)))

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; what was noted by then is written."""
        while not stop.wait(POLL_SECONDS):
            self.turn()
        self.turn()

    def turn(self) -> None:
        """Read and write once. A database that is away changes nothing; the log waits for it."""
        try:
            self._read()
            self._write()
        except SQLAlchemyError as error:
            if not self._failing:
                logger.warning("pauses and trusted senders cannot be read", extra={"cause": type(error).__name__})
            self._failing = True
        else:
            self._failing = False

    def _read(self) -> None:
        with self._database.read() as session:
            paused = switches.is_paused(session, Stage.RECEIVE)
            trusted = [sender for row in associations.trusted(session) if (sender := _as_sender(row))]
        if paused != self.receive_paused:
            logger.info("receiving paused" if paused else "receiving resumed")
        self.receive_paused = paused
        self._policy.trust(trusted)

    def _write(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, {}
        if not calls:
            return
        try:
            with self._database.begin() as session:
                associations.write(session, calls.values())
        except SQLAlchemyError:
            for call, _ in calls.values():
                self.note(call)
            raise


def _as_sender(row: TrustedSender) -> Sender | None:
    """A row as the configuration writes it; one that is not fit for it is passed over."""
    try:
        return Sender(name=row.name, ae_title=row.ae_title, addresses=(row.address,))
    except (ValueError, ClearfilmError):
        logger.exception("trusted sender cannot be used", extra={"sender_id": row.id})
        return None
