"""Live updates: one thread watches the database for everybody; each open page hears which studies changed.

Pages are the truth, an event only says "look again": after a lost connection a page loads its rows anew.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.models import Audit, Instance, Job, Report
from db.session import Database

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
# Whatever else changes (heartbeats do all the time) is told at most this often.
NODE_SECONDS = 2.0
HEARTBEAT_SECONDS = 12.0
# Rows carry the time of their transaction's beginning, so that one may appear after a younger one.
_OVERLAP = timedelta(seconds=5)
# A page that hears of more at once loads everything anew.
MOST_STUDIES = 200
# Open pages of one login: more than anybody looks at, and few enough to leave connections for others.
MOST_OF_LOGIN = 40


@dataclass(eq=False)
class Listener:
    """One open page."""

    login_id: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    studies: set[int] = field(default_factory=set)
    node: bool = False  # something else changed: jobs, processes, users, models


class Hub:
    """Tells open pages what changed.

    Parameters
    ----------
    database : Database
        Of this process.
    """

    def __init__(self, database: Database) -> None:
        self.heartbeat_seconds = HEARTBEAT_SECONDS
        self.news = 0
        """Grows whenever pages are told something: what was read after that holds until it grows again."""
        self._database = database
        self._listeners: set[Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="events", daemon=True)

    def start(self) -> None:
        """Begin to watch; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """End every stream and the thread; may be called from a signal handler."""
        self._stop.set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake_all)

    def is_full(self, login_id: int) -> bool:
        """Whether this login has all the open pages that it may have."""
        return sum(1 for listener in self._listeners if listener.login_id == login_id) >= MOST_OF_LOGIN

    async def listen(self, login_id: int = 0) -> AsyncGenerator[Listener | None]:
        """Changes as they come; None when nothing came for `heartbeat_seconds`."""
        listener = Listener(login_id)
        self._listeners.add(listener)
        try:
            while not self._stop.is_set():
                try:
                    await asyncio.wait_for(listener.wake.wait(), self.heartbeat_seconds)
                except TimeoutError:
                    yield None
                    continue
                if self._stop.is_set():
                    return
                news = Listener(studies=listener.studies, node=listener.node)
                listener.studies, listener.node = set(), False
                listener.wake.clear()
                yield news
        finally:
            self._listeners.discard(listener)

    def _wake_all(self) -> None:
        for listener in self._listeners:
            listener.wake.set()

    def _publish(self, studies: set[int], node: bool) -> None:
        self.news += 1
        for listener in self._listeners:
            # One that does not read gathers no more than what makes it load everything.
            if len(listener.studies) <= MOST_STUDIES:
                listener.studies |= studies
            listener.node |= node
            listener.wake.set()

    def _watch(self) -> None:
        """Poll until closed; a database that is away is tried again."""
        watcher = Watcher(self._database)
        told = -NODE_SECONDS
        untold = False
        while not self._stop.wait(POLL_SECONDS):
            try:
                studies = watcher.poll()
            except SQLAlchemyError:
                logger.warning("events: the database does not answer", exc_info=True)
                self._stop.wait(1.0)
                watcher.close()
                continue
            untold |= studies is not None
            node = untold and time.monotonic() - told >= NODE_SECONDS
            if node:
                told, untold = time.monotonic(), False
            if (studies or node) and self._loop is not None and not self._stop.is_set():
                self._loop.call_soon_threadsafe(self._publish, studies or set(), node)
        watcher.close()


class Watcher:
    """Finds out which studies changed since it was asked last.

    Everything that changes what is seen of a study leaves a film or a report received, a job finished, or an audit
    record.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stack = ExitStack()
        self._connection: Connection | None = None
        self._version: int | None = None
        self._since: datetime | None = None
        self._known: dict[tuple[str, int], datetime] = {}

    def poll(self) -> set[int] | None:
        """Studies that changed, perhaps none of them; None: nothing at all was written."""
        if not self._has_changed():
            return None
        with self._database.read() as session:
            now = self._database.now(session)
            first = self._since is None
            since = (self._since or now) - _OVERLAP
            changed = self._changes(session, since)
        self._since = now
        self._known = {key: at for key, at in self._known.items() if at >= since}
        return set() if first else changed

    def close(self) -> None:
        """Give the connection back."""
        self._connection = self._version = None
        self._stack.close()

    def _has_changed(self) -> bool:
        """SQLite counts the commits of other connections; elsewhere the queries below are the test."""
        if not self._database.is_sqlite:
            return True
        if self._connection is None:
            self._connection = self._stack.enter_context(self._database.connection())
        version = self._connection.execute(text("PRAGMA data_version")).scalar_one()
        self._connection.rollback()
        changed = version != self._version
        self._version = version
        return changed

    def _changes(self, session: Session, since: datetime) -> set[int]:
        # Reports by their row: they have no index on the time, and the latest rows are the latest ones.
        latest = (
            select(Report.id, Report.study_id, Report.received_at)
            .where(Report.study_id.is_not(None))
            .order_by(Report.id.desc())
            .limit(MOST_STUDIES + 1)
            .subquery()
        )
        queries = {
            "report": select(latest).where(latest.c.received_at >= since),
            "film": select(Instance.id, Instance.study_id, Instance.received_at).where(Instance.received_at >= since),
            "job": select(Job.id, Job.study_id, Job.finished_at).where(Job.finished_at >= since),
            "audit": select(Audit.id, Audit.study_id, Audit.at).where(Audit.at >= since, Audit.study_id.is_not(None)),
        }
        changed: set[int] = set()
        for kind, query in queries.items():
            for number, study_id, at in session.execute(query):
                if at is not None and self._known.get((kind, number)) != at:
                    self._known[kind, number] = at
                    changed.add(study_id or 0)
        return changed - {0}
