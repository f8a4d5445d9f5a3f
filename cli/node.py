"""The node's configuration and database, as the short commands need them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from clearfilm import config as configuration
from clearfilm.config import Config
from clearfilm.errors import StartupError
from db import schema
from db.session import Database


@contextmanager
def opened(config_path: Path) -> Iterator[tuple[Config, Database]]:
    """The configuration and its database, which must be there already; closed at the end.

    Raises
    ------
    StartupError
        If there is no database, or it has another schema than this program.
    """
    config = configuration.load(config_path)
    with closing(Database(config.database_url)) as database:
        _require_schema(database)
        yield config, database


@contextmanager
def prepared(config_path: Path) -> Iterator[tuple[Config, Database]]:
    """The same for commands that bring something in: the database is made or migrated. Raises StartupError."""
    config = configuration.load(config_path)
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        yield config, database


def _require_schema(database: Database) -> None:
    found = schema.version(database)
    if found is None:
        place = database.url.database if database.is_sqlite else database.url.render_as_string(hide_password=True)
        raise StartupError(
            f"there is no database at {place}; start the node first, or name the right configuration with --config"
        )
    if found != schema.HEAD:
        raise StartupError(
            f"the database has schema {found}, this program needs {schema.HEAD}: the next start of the node changes it"
        )
