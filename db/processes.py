"""The node's processes: each tells every few seconds that it lives, and adds up what it has counted."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import JSON, Float, String, Text, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from clearfilm import metrics
from clearfilm.process import is_dead, process_name
from db.models import Base
from db.session import Database

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 5.0
# Silent for longer: the process hangs, or its machine is gone.
SILENT_AFTER = timedelta(seconds=30)


class Process(Base):
    """One running process of the node."""

    __tablename__ = "processes"

    owner: Mapped[str] = mapped_column(String(128), primary_key=True, comment="as in jobs.owner")
    kind: Mapped[str] = mapped_column(String(16), comment="storescp, worker, deliver, schedule, worklist")
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    detail: Mapped[dict[str, Any]] = mapped_column(JSON(), comment="device, port, associations")


class Total(Base):
    """What all processes together have counted since the database exists."""

    __tablename__ = "totals"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    labels: Mapped[str] = mapped_column(Text, primary_key=True, comment="JSON object, keys sorted")
    value: Mapped[float] = mapped_column(Float)


@dataclass(frozen=True)
class Seen:
    """A process as it was seen last."""

    owner: str
    kind: str
    started_at: datetime
    seen_at: datetime
    detail: dict[str, Any]
    is_silent: bool


def seen(session: Session, *, now: datetime) -> list[Seen]:
    """All processes that have not ended in order; those that crashed are silent."""
    rows = session.scalars(select(Process).order_by(Process.kind, Process.started_at))
    return [
        Seen(row.owner, row.kind, row.started_at, row.seen_at, row.detail, now - row.seen_at > SILENT_AFTER)
        for row in rows
    ]


def totals(session: Session) -> Iterator[tuple[str, dict[str, str], float]]:
    """Names, labels and values of everything that was counted."""
    for row in session.scalars(select(Total).order_by(Total.name, Total.labels)):
        yield row.name, json.loads(row.labels), row.value


class Heartbeat:
    """Tells that this process lives; use it with `with` around the work.

    Parameters
    ----------
    database : Database
        Of this process.
    kind : str
        Such as "worker".
    detail : callable, optional
        Facts for the admin console; asked at each beat. JSON values, no patient data.
    period_seconds : float
        Between beats.
    registry : prometheus_client.CollectorRegistry
        What this process counts.
    """

    def __init__(
        self,
        database: Database,
        kind: str,
        detail: Callable[[], dict[str, Any]] = dict,
        *,
        period_seconds: float = PERIOD_SECONDS,
        registry: CollectorRegistry = metrics.REGISTRY,
    ) -> None:
        self._database = database
        self._kind = kind
        self._detail = detail
        self._period_seconds = period_seconds
        self._registry = registry
        self._owner = process_name()
        self._kept: dict[tuple[str, str], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Write the first beat, then go on in a thread."""
        self._kept = dict(_counted(self._registry))
        with self._database.begin() as session:
            _forget_dead(session)
            self._beat(session, first=True)
        self._thread.start()

    def __enter__(self) -> Heartbeat:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """The last numbers go in, and the row goes: a process that ended in order is not missed."""
        self._stop.set()
        self._thread.join()
        try:
            with self._database.begin() as session:
                self._beat(session)
                session.execute(delete(Process).where(Process.owner == self._owner))
        except SQLAlchemyError:
            logger.warning("last heartbeat not written", exc_info=True)

    def _run(self) -> None:
        while not self._stop.wait(self._period_seconds):
            try:
                with self._database.begin() as session:
                    kept = self._beat(session)
            except SQLAlchemyError as error:
                logger.warning("heartbeat not written", extra={"cause": type(error).__name__})
            else:
                self._kept = kept

    def _beat(self, session: Session, *, first: bool = False) -> dict[tuple[str, str], float]:
        """Write one beat; gives the numbers that are in the database once it is committed."""
        now = self._database.now(session)
        values = {"kind": self._kind, "seen_at": now, "detail": self._detail()}
        make = _insert(session)
        session.execute(
            make(Process)
            .values(owner=self._owner, started_at=now, **values)
            .on_conflict_do_update(index_elements=[Process.owner], set_=values | ({"started_at": now} if first else {}))
        )
        counted = dict(_counted(self._registry))
        for key, value in counted.items():
            more = value - self._kept.get(key, 0.0)
            if more:
                added = make(Total).values(name=key[0], labels=key[1], value=more)
                session.execute(
                    added.on_conflict_do_update(
                        index_elements=[Total.name, Total.labels], set_={"value": Total.value + added.excluded.value}
                    )
                )
        return counted


def _counted(registry: CollectorRegistry) -> Iterator[tuple[tuple[str, str], float]]:
    """Counters and histograms of a registry, sample by sample."""
    for metric in registry.collect():
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                yield (sample.name, json.dumps(sample.labels, sort_keys=True)), sample.value


def _forget_dead(session: Session) -> None:
    """Rows of processes of this host that exist no more: this start takes their place."""
    gone = [owner for owner in session.scalars(select(Process.owner)) if is_dead(owner)]
    session.execute(delete(Process).where(Process.owner.in_(gone)))


def _insert(session: Session) -> Any:
    return postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
