"""Keeps the leases of claimed jobs alive while their work goes on."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from db import queue
from db.queue import ClaimedJob
from db.session import Database

logger = logging.getLogger(__name__)

DATABASE_PAUSE_SECONDS = 5.0
Claimed = TypeVar("Claimed")


class Leases:
    """The jobs that this process holds; a thread extends their leases.

    A lease that is lost all the same is noticed when the job is ended (`LostLease`).

    Parameters
    ----------
    database : Database
        Where the jobs are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: dict[int, ClaimedJob] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Leases":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def hold(self, job: ClaimedJob) -> None:
        """Extend this job's lease from now on."""
        with self._lock:
            self._held[job.id] = job

    def release(self, job: ClaimedJob) -> None:
        """The job has ended or was given back."""
        with self._lock:
            self._held.pop(job.id, None)

    def _beat(self) -> None:
        while not self._stop.wait(queue.HEARTBEAT.total_seconds()):
            with self._lock:
                held = list(self._held.values())
            try:
                with self._database.begin() as session:
                    queue.extend(session, held, now=self._database.now(session))
            except SQLAlchemyError:
                # The next beat tries again; four beats fit into one lease.
                logger.exception("heartbeat failed")


def patiently(claim: Callable[[], Claimed], stop: threading.Event) -> Claimed | None:
    """Claim; a database that is away for a while ends no process: log, wait, and let the loop come again.

    Parameters
    ----------
    claim : callable
        One transaction.
    stop : threading.Event
        Ends the wait.
    """
    try:
        return claim()
    except SQLAlchemyError:
        logger.exception("the database is away")
        stop.wait(DATABASE_PAUSE_SECONDS)
        return None
