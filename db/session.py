"""Engines and sessions: one factory, with the settings that durability and concurrency need."""

import fcntl
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from clearfilm.errors import StartupError

_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph"})


class Database:
    """The node's database: SQLite in the data folder, or PostgreSQL.

    Parameters
    ----------
    url : str
        SQLAlchemy URL.
    busy_timeout_seconds : float
        How long a writer waits for SQLite's one write lock.

    Notes
    -----
    Make one in each process, after any fork.
    """

    def __init__(self, url: str, *, busy_timeout_seconds: float = 15.0) -> None:
        self.url = make_url(url)
        self._busy_timeout_seconds = busy_timeout_seconds
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._writer = self._make_engine(writes=True)
        self._reader = self._make_engine(writes=False) if self.is_sqlite else self._writer
        self._write_sessions = sessionmaker(self._writer, expire_on_commit=False)
        self._read_sessions = sessionmaker(self._reader, expire_on_commit=False)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A unit of work: commits at the end, rolls back on an exception.

        No network, file or network-model call belongs inside: on SQLite it holds the one write lock.
        """
        with self._write_sessions.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; it never waits for a writer."""
        with self._read_sessions() as session:
            yield session

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """One connection for reading, kept until the end: SQLite counts commits for each connection apart."""
        with self._reader.connect() as connection:
            yield connection

    def now(self, session: Session) -> datetime:
        """The database's time, so that leases do not depend on the clocks of several machines."""
        if self.is_sqlite:
            return datetime.now(UTC)
        return session.execute(text("SELECT clock_timestamp()")).scalar_one()

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database file and empty it (SQLite only)."""
        if self.is_sqlite:
            self._outside_transactions("PRAGMA wal_checkpoint(TRUNCATE)")

    def backup(self, target: Path) -> None:
        """Write a consistent copy (SQLite only).

        Parameters
        ----------
        target : pathlib.Path
            Must not exist.
        """
        self._outside_transactions("VACUUM INTO ?", str(target))

    def check(self) -> None:
        """Prove that the database answers and is whole.

        Raises
        ------
        StartupError
            If it is missing, damaged or out of reach.
        """
        try:
            with self._reader.connect() as connection:
                if not self.is_sqlite:
                    connection.execute(text("SELECT 1"))
                    return
                verdict = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        except SQLAlchemyError as error:
            raise self._startup_error(error) from error
        if verdict != "ok":
            raise StartupError(f"the database {self.url.database} is damaged ({verdict}); restore a backup")

    @contextmanager
    def only_one(self, name: str) -> Iterator[None]:
        """Hold a lock that only one process of the node can have; it is released when the process ends.

        Raises
        ------
        StartupError
            If another process holds it.
        """
        taken = StartupError(f"another {name} process works on this database; stop it first")
        if self.is_sqlite:
            with Path(f"{self.url.database}.{name}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise taken from None
                yield
            return
        with self._reader.connect() as connection:
            key = {"key": zlib.crc32(name.encode())}
            if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar_one():
                raise taken
            connection.commit()  # the lock is the session's; an open transaction would time out
            yield

    def close(self) -> None:
        """Close all connections."""
        self._writer.dispose()
        self._reader.dispose()

    def _outside_transactions(self, statement: str, *parameters: str) -> None:
        """SQLite refuses some statements inside a transaction, which SQLAlchemy always opens."""
        connection = self._reader.raw_connection()
        try:
            connection.cursor().execute(statement, parameters)
        finally:
            connection.close()

    def _startup_error(self, error: SQLAlchemyError) -> StartupError:
        cause = str(error.orig).splitlines()[0] if isinstance(error, DBAPIError) else type(error).__name__
        place = self.url.render_as_string(hide_password=True)
        cure = "restore a backup" if self.is_sqlite else "start its server, or mend database.url"
        return StartupError(f"the database {place} cannot be used: {cause}; {cure}")

    def _make_engine(self, *, writes: bool) -> Engine:
        if not self.is_sqlite:
            try:
                return create_engine(
                    self.url,
                    pool_pre_ping=True,
                    connect_args={
                        "options": "-c idle_in_transaction_session_timeout=30000 -c statement_timeout=30000",
                        "keepalives_idle": 30,
                        "connect_timeout": 10,
                    },
                )
            except ImportError as error:
                raise StartupError("the driver of PostgreSQL is not installed: install the extra `postgres`") from error
        _refuse_network_share(Path(str(self.url.database)))
        engine = create_engine(self.url, connect_args={"timeout": self._busy_timeout_seconds})
        event.listen(engine, "connect", _set_pragmas)
        # Deferred transactions that read and then write fail with "locked" whatever the busy timeout is.
        event.listen(engine, "begin", _begin_immediate if writes else _begin_deferred)
        return engine


def _set_pragmas(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's events below begin transactions, not the driver
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "journal_size_limit = 67108864",
        # SQLite before 3.51.3 can damage the file when two connections checkpoint at once:
        # only the schedule does it.
        "wal_autocheckpoint = 0",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")


def _refuse_network_share(path: Path) -> None:
    """WAL needs shared memory, which works on one host only."""
    folder = path.resolve().parent
    mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    covering = [mount for mount in mounts if folder.is_relative_to(mount[1].replace("\\040", " "))]
    if covering and max(covering, key=lambda mount: len(mount[1]))[2] in _NETWORK_FILE_SYSTEMS:
        raise StartupError(f"{folder} is a network share; SQLite needs a local disk, or set database.url")
