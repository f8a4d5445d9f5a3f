"""Job kind `analyse`: decode, gate, read by the network, store score and map.

While the network reads one micro-batch, the decoder children prepare the next: films that wait are
claimed ahead, up to two batches.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from clearfilm import metrics
from clearfilm.config import Config
from clearfilm.crashpoints import crash_point
from clearfilm.dicom.pixels import PreparedFilm
from clearfilm.dicom.preprocessing import PREPROCESSING_ID
from clearfilm.errors import LostLease, NotAnalysable, StorageError
from clearfilm.process import process_name
from clearfilm.vision.engine import Reading
from db import conclusions, queue, switches
from db.models import Analysis, Instance, InstanceState, JobKind
from db.queue import ClaimedJob
from db.session import Database
from db.switches import Stage
from worker import failures
from worker.decoder import DecoderPool
from worker.leases import Leases, patiently
from worker.model import ActiveModel, LoadedModel
from worker.store import FilmMap, Store

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
RETRY = timedelta(seconds=30)
UNUSUAL_IMAGE = "the image is unlike the frontal chest films that the model knows"


@dataclass(frozen=True, eq=False)
class Waiting:
    """A claimed film on its way through a decoder."""

    job: ClaimedJob
    prepared: Future[PreparedFilm]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one film: a reading with its stored map, or a reason."""

    job: ClaimedJob
    reading: Reading | None = None
    map_path: str | None = None
    facts: dict[str, Any] | None = None
    reason: str | None = None
    postponed: str | None = None  # why there is to be another try


class Analyser:
    """The loop of the analysing process.

    Parameters
    ----------
    config : Config
        Sections `worker` and `study` are used.
    database : Database
        Of this process.
    store : Store
        Films in, maps out.
    decoders : DecoderPool
        Child processes that decode and gate.
    model : ActiveModel
        The network; follows the database's active bundle.
    leases : Leases
        Heartbeat of the claimed jobs.
    offer : callable
        Hands a prepared film (instance number, network input) to the bundles that read silently; never waits.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        store: Store,
        decoders: DecoderPool,
        model: ActiveModel,
        leases: Leases,
        offer: Callable[[int, NDArray[np.uint8]], None],
    ) -> None:
        self._batch_size = config.worker.batch_size
        self._quiet = timedelta(seconds=config.study.quiet_seconds)
        self._database = database
        self._store = store
        self._decoders = decoders
        self._model = model
        self._leases = leases
        self._offer = offer
        self._owner = process_name()
        self._waiting: deque[Waiting] = deque()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; films that were claimed by then are finished first."""
        while not stop.is_set() or self._waiting:
            if not stop.is_set():
                patiently(self._claim_ahead, stop)
            batch = self._take_decoded()
            if batch:
                self._analyse_or_strike(batch)
            elif not self._waiting:
                stop.wait(POLL_SECONDS)

    def _claim_ahead(self) -> None:
        """Claim until two micro-batches wait. One transaction for all: each commit is an fsync."""
        room = 2 * self._batch_size - len(self._waiting)
        claimed: list[tuple[ClaimedJob, str]] = []
        with self._database.begin() as session:
            now = self._database.now(session)
            paused = switches.is_paused(session, Stage.ANALYSE)
            while len(claimed) < room and not paused:
                job = queue.claim(session, JobKind.ANALYSE, owner=self._owner, now=now)
                if job is None:
                    break
                path = session.scalars(select(Instance.path).where(Instance.id == job.instance_id)).one()
                claimed.append((job, path))
        edge = self._model.current().bundle.description.input_edge if claimed else 0
        for job, path in claimed:
            self._leases.hold(job)
            crash_point("claimed")
            self._waiting.append(Waiting(job, self._decoders.submit(self._store.path(path), edge)))

    def _take_decoded(self) -> list[Waiting]:
        """Films whose decoding has ended, oldest first, at most a micro-batch; waits a little for the first."""
        if not self._waiting:
            return []
        wait([self._waiting[0].prepared], timeout=POLL_SECONDS)
        batch: list[Waiting] = []
        while self._waiting and len(batch) < self._batch_size and self._waiting[0].prepared.done():
            batch.append(self._waiting.popleft())
        return batch

    def _analyse_or_strike(self, batch: Sequence[Waiting]) -> None:
        """The edge around one micro-batch: whatever goes wrong, its films are given back or fail visibly."""
        try:
            self._analyse(batch)
        except Exception as error:
            logger.exception("analysis failed", extra={"job_ids": [waiting.job.id for waiting in batch]})
            for waiting in batch:
                self._leases.release(waiting.job)
                failures.strike(self._database, waiting.job, error, retry=RETRY, quiet=self._quiet)

    def _analyse(self, batch: Sequence[Waiting]) -> None:
        model = self._model.current()
        outcomes: list[Outcome] = []
        readable: list[tuple[ClaimedJob, PreparedFilm]] = []
        edge = model.bundle.description.input_edge
        for waiting in batch:
            try:
                film = waiting.prepared.result()
            except NotAnalysable as error:
                outcomes.append(Outcome(waiting.job, reason=error.reason))
                continue
            if film.network_input.shape == (edge, edge):
                readable.append((waiting.job, film))
            else:
                outcomes.append(Outcome(waiting.job, postponed="the model was switched meanwhile"))
        if readable:
            crash_point("middle-of-inference")
            began_at = time.monotonic()
            readings = model.engine.run(np.stack([film.network_input for _, film in readable]))
            for _ in readings:
                metrics.INFERENCE.observe((time.monotonic() - began_at) / len(readings))
            for (job, film), reading in zip(readable, readings, strict=True):
                outcomes.append(self._keep(job, film, reading, model))
        self._publish(outcomes, model)
        for job, film in readable:
            if job.instance_id is not None:
                self._offer(job.instance_id, film.network_input)

    def _keep(self, job: ClaimedJob, film: PreparedFilm, reading: Reading, model: LoadedModel) -> Outcome:
        if reading.unusual:
            return Outcome(job, reason=UNUSUAL_IMAGE)
        metrics.SCORES.observe(reading.score)
        try:
            path = self._store.write_map(FilmMap(evidence=reading.evidence, display=film.display))
        except StorageError as error:
            return Outcome(job, postponed=str(error))
        crash_point("result-file-before-commit")
        facts = {**vars(film.facts), "feature_distance": reading.distance}
        return Outcome(job, reading=reading, map_path=path, facts=facts)

    def _publish(self, outcomes: Sequence[Outcome], model: LoadedModel) -> None:
        """Write all outcomes of a micro-batch in one transaction; a lost lease only undoes its own film."""
        with self._database.begin() as session:
            now = self._database.now(session)
            for outcome in outcomes:
                try:
                    with session.begin_nested():
                        self._publish_one(session, outcome, model, now)
                except LostLease:
                    logger.warning("lease lost, nothing published", extra={"job_id": outcome.job.id})
        for outcome in outcomes:
            self._leases.release(outcome.job)
            logger.info(
                "film analysed" if outcome.reading else "film not analysed",
                extra={
                    "job_id": outcome.job.id,
                    "instance_id": outcome.job.instance_id,
                    "reason": outcome.reason,
                },
            )

    def _publish_one(self, session: Session, outcome: Outcome, model: LoadedModel, now: datetime) -> None:
        job = outcome.job
        if outcome.postponed:
            queue.postpone(session, job, run_after=now + RETRY, error=outcome.postponed)
            return
        queue.finish(session, job, now=now)
        instance = session.get_one(Instance, job.instance_id)
        if outcome.reading is None:
            instance.state, instance.reason = InstanceState.NOT_ANALYSED, outcome.reason
        else:
            instance.state, instance.reason = InstanceState.ANALYSED, None
            _write_analysis(session, instance.id, outcome, model, now)
        conclusions.request(session, job.study_id, quiet=self._quiet, now=now)


def _write_analysis(session: Session, instance_id: int, outcome: Outcome, model: LoadedModel, now: datetime) -> None:
    reading = outcome.reading
    assert reading is not None
    make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    values = {
        "score": reading.score,
        "logit": reading.logit,
        "above": not reading.below_operating_point,
        "shadow": False,
        "map_path": outcome.map_path,
        "preprocessing_id": PREPROCESSING_ID,
        "device": model.engine.describe(),
        "facts": outcome.facts,
        "created_at": now,
    }
    session.execute(
        make(Analysis)
        .values(instance_id=instance_id, model_id=model.row_id, **values)
        # Read before by the same bundle: the first reading stands, unless it was a silent one.
        .on_conflict_do_update(
            index_elements=[Analysis.instance_id, Analysis.model_id], set_=values, where=Analysis.shadow.is_(True)
        )
    )
