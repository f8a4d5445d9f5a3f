"""Group commit: films that arrive at the same time share one transaction, and each waits for its commit."""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future
from datetime import timedelta

from sqlalchemy.exc import DBAPIError, OperationalError

from clearfilm.errors import StorageError
from db import intake
from db.intake import Outcome, ReceivedFilm
from db.session import Database

logger = logging.getLogger(__name__)

_MOST = 64
"""Films in one transaction; it holds SQLite's one write lock."""


_Waiting = tuple[ReceivedFilm, Future[Outcome]]


class CommitUnknown(StorageError):
    """The connection broke while the commit was under way: the rows may be there or not."""


class Commits:
    """Records films, each call one film, calls of the same moment in one transaction.

    A caller that finds nobody at work commits for everybody who waits; the others sleep meanwhile.

    Parameters
    ----------
    database : Database
    quiet : datetime.timedelta
        See `db.intake.record`.
    """

    def __init__(self, database: Database, quiet: timedelta) -> None:
        self._database = database
        self._quiet = quiet
        self._waiting: deque[_Waiting] = deque()
        self._writing = threading.Lock()

    def record(self, film: ReceivedFilm) -> Outcome:
        """Return when the film's rows are committed.

        Raises
        ------
        StorageError
            If they are not; `CommitUnknown` if nobody can tell.
        """
        future: Future[Outcome] = Future()
        self._waiting.append((film, future))
        with self._writing:
            # Whoever held the lock before may have taken this film along.
            while not future.done():
                self._settle([self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST))])
        return future.result()

    def revive(self, instance_id: int) -> None:
        """Have a film analysed that had failed because its file was lost."""
        with self._database.begin() as session:
            intake.revive(session, instance_id, now=self._database.now(session), quiet=self._quiet)

    def _settle(self, batch: list[_Waiting]) -> None:
        try:
            outcomes = self._commit([film for film, _ in batch])
        except DBAPIError as error:
            if error.connection_invalidated or isinstance(error, OperationalError):
                _fail(batch, StorageError("the database is locked or away"), error)
            else:
                self._settle_each(batch)
        except StorageError as error:
            _fail(batch, error, error.__cause__)
        except Exception:  # noqa: BLE001 - whatever one film does to the database, the others go on
            self._settle_each(batch)
        else:
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                future.set_result(outcome)

    def _settle_each(self, batch: list[_Waiting]) -> None:
        """One film that the database will not take must not fail the others."""
        for film, future in batch:
            try:
                [outcome] = self._commit([film])
            except Exception as error:  # noqa: BLE001 - raised again where the film is served
                _fail([(film, future)], StorageError("the database did not take the film"), error)
            else:
                future.set_result(outcome)

    def _commit(self, films: list[ReceivedFilm]) -> list[Outcome]:
        committing = False
        try:
            with self._database.begin() as session:
                now = self._database.now(session)
                outcomes = [intake.record(session, film, now=now, quiet=self._quiet) for film in films]
                session.flush()
                committing = True
        except DBAPIError as error:
            if committing:
                raise CommitUnknown("the outcome of a commit is unknown") from error
            raise
        return outcomes


def _fail(batch: list[_Waiting], failure: StorageError, cause: BaseException | None) -> None:
    # The driver's message may quote a patient's name; its type says enough.
    logger.error("films not recorded", extra={"films": len(batch), "cause": type(cause).__name__})
    for _, future in batch:
        future.set_exception(failure)
