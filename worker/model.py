"""The active bundle, loaded; a switch in the database is followed before the next micro-batch."""

import logging
from dataclasses import dataclass
from pathlib import Path

from clearfilm.config import Config
from clearfilm.process import process_name
from clearfilm.vision.assemble import keep_bundle, resolve_bundle
from clearfilm.vision.bundle import Bundle, load_bundle
from clearfilm.vision.engine import Engine
from db import registry
from db.session import Database

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A bundle in memory."""

    row_id: int
    bundle: Bundle
    engine: Engine


class ActiveModel:
    """The network that reads films now.

    Parameters
    ----------
    config : Config
        Sections `worker`, `heatmap` and, at the first start, `model`.
    database : Database
        Says which bundle is active.

    Raises
    ------
    BundleError
        If the active bundle is missing or altered.
    """

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database
        ensure_first_bundle(config, database)
        self._loaded = self._load()

    def current(self) -> LoadedModel:
        """The active model; reads the bundle when another one was activated."""
        with self._database.read() as session:
            row = registry.active(session)
        if row is not None and row.id != self._loaded.row_id:
            self._loaded = self._load()
            logger.info("model switched", extra={"model": self._loaded.bundle.digest})
        return self._loaded

    def _load(self) -> LoadedModel:
        with self._database.read() as session:
            row = registry.active(session)
        assert row is not None
        bundle = load_bundle(Path(row.path), expected_digest=row.digest)
        engine = Engine(bundle, self._config.worker, self._config.heatmap)
        return LoadedModel(row_id=row.id, bundle=bundle, engine=engine)


def ensure_first_bundle(config: Config, database: Database) -> None:
    """Register and activate the configured bundle if the database has no active one yet."""
    with database.read() as session:
        if registry.active(session) is not None:
            return
    bundle = keep_bundle(resolve_bundle(config.model.bundle, config.data_folder), config.data_folder)
    with database.begin() as session:
        registry.lock(session)
        if registry.active(session) is not None:
            return
        now = database.now(session)
        point = bundle.description.operating_point
        registry.register(
            session,
            digest=bundle.digest,
            name=bundle.description.name,
            version=bundle.description.version,
            path=str(bundle.folder),
            operating_point=point.model_dump(mode="json") if point else None,
            now=now,
        )
        registry.start(session, bundle.digest, actor=process_name(), now=now)
