"""The node's configuration and database, as the short commands need them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearfilm import config as configuration
from clearfilm.config import Config
from db import schema
from db.session import Database


@contextmanager
def opened(config_path: Path) -> Iterator[tuple[Config, Database]]:
    """The configuration and its database, prepared; closed at the end."""
    config = configuration.load(config_path)
    database = Database(config.database_url)
    try:
        schema.prepare(database)
        yield config, database
    finally:
        database.close()
