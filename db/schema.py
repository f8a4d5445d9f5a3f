"""Bring a database to the present schema."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from clearfilm.errors import StartupError
from db.session import Database

HEAD = "0014"
_MIGRATIONS = Path(__file__).parent / "migrations"


def prepare(database: Database) -> None:
    """Create the tables, or migrate older ones; cheap when there is nothing to do.

    Parameters
    ----------
    database : Database
        For SQLite the file is made if it is missing.

    Raises
    ------
    StartupError
        If the database is damaged, out of reach, or newer than this program.
    """
    if database.is_sqlite:
        try:
            Path(str(database.url.database)).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(f"the data folder cannot be made: {error.strerror}: {error.filename}") from error
    database.check()
    with database.begin() as session:
        # Several processes may start at once: BEGIN IMMEDIATE serialises them, PostgreSQL needs a lock.
        if not database.is_sqlite:
            session.execute(text("SELECT pg_advisory_xact_lock(724211)"))
        connection = session.connection()
        found = _version(connection)
        if found == HEAD:
            return
        _refuse_newer(found)
        _upgrade(connection)


def version(database: Database) -> str | None:
    """The schema that a database has; nothing is made or changed.

    Returns
    -------
    str or None
        `HEAD` or an older one; None: there is no such file, or no tables in it.

    Raises
    ------
    StartupError
        As `prepare` does.
    """
    if database.is_sqlite and not _has_file(Path(str(database.url.database))):
        return None
    database.check()
    with database.read() as session:
        found = _version(session.connection())
    _refuse_newer(found)
    return found


def _has_file(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StartupError(f"the database {path} cannot be read: {error.strerror}") from error
    return True


def _refuse_newer(found: str | None) -> None:
    if found is not None and found > HEAD:
        raise StartupError(
            f"the database has schema {found}, this program knows {HEAD}: install the newer version again"
        )


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _upgrade(connection: Connection) -> None:
    # Imported here: 0.9 s that only a changed schema is worth.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
