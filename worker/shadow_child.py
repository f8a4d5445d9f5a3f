"""The process of one shadow bundle: reads silently what the active bundle has read, whenever no film waits.

Its readings are rows of `analyses` that no conclusion looks at. It runs on one thread of the processor at the lowest
priority, and the kernel ends it first when memory runs out: the active bundle's process must not feel it.
"""

import logging
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import and_, exists, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clearfilm import logs
from clearfilm.config import Config, Heatmap
from clearfilm.dicom.preprocessing import PREPROCESSING_ID
from clearfilm.errors import ClearfilmError, NotAnalysable, StartupError
from clearfilm.process import end_with_parent, process_name, stop_event
from clearfilm.vision.bundle import load_bundle
from clearfilm.vision.engine import Engine, Reading
from db import registry
from db.models import Analysis, Instance, Job, JobKind, JobState, ModelBundle, ModelState
from db.session import Database
from worker.decoder import DecoderPool

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
LOCK_SECONDS = 5.0
# A row that another machine committed late may have a smaller number than one that was seen.
LOOK_AGAIN_SECONDS = 600.0
_FILMS = 4
_KEPT = 256

Offer = tuple[int, NDArray[np.uint8]]


class Offers(Protocol):
    """Prepared films that the active bundle's process hands over."""

    def get_nowait(self) -> Offer:
        """The next one; raises `queue.Empty`."""


@dataclass(frozen=True)
class Due:
    """A film that the active bundle has read and this one has not."""

    analysis_id: int
    instance_id: int
    path: str


def main(config: Config, model_id: int, offers: Offers) -> None:
    """Read silently until SIGTERM, or until the bundle is no shadow any more.

    Whatever is wrong with the bundle switches it off, with the reason; a database that is away does not.

    Parameters
    ----------
    config : Config
        The whole configuration.
    model_id : int
        Row of the bundle.
    offers : Offers
        See `Shadow`.
    """
    logs.configure("shadow")
    end_with_parent()
    _step_back()
    stop = stop_event()
    database = Database(config.database_url)
    try:
        with ExitStack() as stack:
            # One process for each bundle, however many machines there are.
            while not _entered(stack, database, f"shadow-{model_id}"):
                if stop.wait(LOCK_SECONDS):
                    return
            Shadow(config, database, model_id, offers).run(stop)
    except SQLAlchemyError:
        logger.exception("shadow ended, the database is away")
    except (ClearfilmError, MemoryError, RuntimeError, OSError) as error:
        logger.exception("shadow failed")
        switch_off(database, model_id, describe(error))
    finally:
        database.close()


def describe(error: BaseException) -> str:
    """Why a shadow was switched off, for people."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
        return "out of memory"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def switch_off(database: Database, model_id: int, note: str) -> None:
    """End silent reading for a reason that everybody can see."""
    with database.begin() as session:
        bundle = session.get_one(ModelBundle, model_id)
        registry.end_shadow(session, bundle, actor=process_name(), now=database.now(session), note=note)


def _entered(stack: ExitStack, database: Database, name: str) -> bool:
    with suppress(StartupError):
        stack.enter_context(database.only_one(name))
        return True
    return False


def _step_back() -> None:
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


class Shadow:
    """Silent reading with one bundle.

    Parameters
    ----------
    config : Config
        Section `worker`; device and threads are not used.
    database : Database
        Of this process.
    model_id : int
        Row of the bundle.
    offers : Offers
        Films as they were prepared for the active bundle, where the input edge agrees: instance and network input.
        What is not offered is prepared once more.

    Raises
    ------
    BundleError
        If the bundle is missing or altered.
    """

    def __init__(self, config: Config, database: Database, model_id: int, offers: Offers) -> None:
        self._config = config.model_copy(
            update={"worker": config.worker.model_copy(update={"device": "cpu", "threads": 1, "decoders": 1})}
        )
        self._database = database
        self._model_id = model_id
        self._offers = offers
        with database.read() as session:
            row = session.get_one(ModelBundle, model_id)
        self._since = row.shadow_since
        bundle = load_bundle(Path(row.path), expected_digest=row.digest)
        self._edge = bundle.description.input_edge
        self._engine = Engine(bundle, self._config.worker, Heatmap())
        self._prepared: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._unreadable: set[int] = set()
        self._seen = 0
        self._looked_again = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set or the bundle is no shadow any more."""
        with ExitStack() as stack:
            decoders: DecoderPool | None = None
            while not stop.is_set():
                self._take_offers()
                with self._database.read() as session:
                    if session.get_one(ModelBundle, self._model_id).state is not ModelState.SHADOW:
                        return
                    due = [] if films_wait(session, self._database.now(session)) else self._due(session)
                if not due:
                    stop.wait(POLL_SECONDS)
                    continue
                if decoders is None and any(film.instance_id not in self._prepared for film in due):
                    decoders = stack.enter_context(DecoderPool(self._config))
                self._read(due, decoders)

    def _take_offers(self) -> None:
        with suppress(queue.Empty):
            while True:
                instance_id, film = self._offers.get_nowait()
                self._prepared[instance_id] = film
                while len(self._prepared) > _KEPT:
                    self._prepared.popitem(last=False)

    def _due(self, session: Session) -> list[Due]:
        own = exists().where(and_(_OWN.instance_id == Analysis.instance_id, _OWN.model_id == self._model_id))
        found = session.execute(
            select(Analysis.id, Analysis.instance_id, Instance.path)
            .join(Instance, Instance.id == Analysis.instance_id)
            .where(
                Analysis.id > self._seen,
                Analysis.shadow.is_(False),
                Analysis.created_at >= self._since,
                Analysis.instance_id.not_in(self._unreadable),
                ~own,
            )
            .order_by(Analysis.id)
            .limit(_FILMS)
        ).all()
        if not found and time.monotonic() - self._looked_again > LOOK_AGAIN_SECONDS:
            self._seen, self._looked_again = 0, time.monotonic()
        return [Due(*row) for row in found]

    def _read(self, due: Sequence[Due], decoders: DecoderPool | None) -> None:
        inputs: dict[int, NDArray[np.uint8]] = {}
        shared = {film.instance_id for film in due if film.instance_id in self._prepared}
        for film in due:
            prepared = self._prepared.pop(film.instance_id, None)
            if prepared is None and decoders is not None:
                prepared = self._prepare(film, decoders)
            if prepared is not None:
                inputs[film.instance_id] = prepared
        readings = self._engine.run(np.stack(list(inputs.values()))) if inputs else []
        with self._database.begin() as session:
            now = self._database.now(session)
            for instance_id, reading in zip(inputs, readings, strict=True):
                self._keep(session, instance_id, reading, now, shared=instance_id in shared)
        self._seen = due[-1].analysis_id
        if readings:
            logger.info("films read silently", extra={"model_id": self._model_id, "films": len(readings)})

    def _prepare(self, film: Due, decoders: DecoderPool) -> NDArray[np.uint8] | None:
        path = self._config.data_folder / film.path
        try:
            return decoders.submit(path, self._edge).result().network_input
        except NotAnalysable as error:
            # Deleted meanwhile by retention, for example.
            logger.warning("film not read silently", extra={"instance_id": film.instance_id, "reason": error.reason})
            self._unreadable.add(film.instance_id)
            return None

    def _keep(self, session: Session, instance_id: int, reading: Reading, now: datetime, *, shared: bool) -> None:
        if session.get(Instance, instance_id) is None:
            return
        make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        session.execute(
            make(Analysis)
            .values(
                instance_id=instance_id,
                model_id=self._model_id,
                score=reading.score,
                logit=reading.logit,
                # The active bundle would not answer for an unusual film, so it is not below.
                above=reading.unusual or not reading.below_operating_point,
                shadow=True,
                map_path=None,
                preprocessing_id=PREPROCESSING_ID,
                device=self._engine.describe(),
                facts={"feature_distance": reading.distance, "unusual": reading.unusual, "prepared_once": shared},
                created_at=now,
            )
            .on_conflict_do_nothing(index_elements=[Analysis.instance_id, Analysis.model_id])
        )


_OWN = Analysis.__table__.alias("own").c


def films_wait(session: Session, now: datetime) -> bool:
    """Whether the active bundle has work: then nothing is read silently."""
    due = and_(Job.state == JobState.QUEUED, Job.run_after <= now)
    return (
        session.scalar(select(exists().where(Job.kind == JobKind.ANALYSE, or_(due, Job.state == JobState.RUNNING))))
        or False
    )
