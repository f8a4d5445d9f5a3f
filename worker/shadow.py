"""Shadow bundles: one child process for each, so that what happens there cannot touch the active bundle."""

import logging
import multiprocessing
import queue
import signal
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from clearfilm.config import Config
from clearfilm.errors import BundleError
from clearfilm.vision.bundle import read_description
from db import registry
from db.models import ModelBundle
from db.session import Database
from worker import shadow_child

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
RESTART_SECONDS = 10.0
STOP_SECONDS = 20.0
_OFFERS = 64
# The database is away, or the whole machine stops.
_ORDERLY = (0, -signal.SIGTERM, -signal.SIGINT)


@dataclass
class _Child:
    """The process of one bundle."""

    model_id: int
    edge: int
    process: SpawnProcess
    offers: "Queue[shadow_child.Offer]"
    started: float = field(default_factory=time.monotonic)


class Shadows:
    """Looks after the processes of all shadow bundles.

    Parameters
    ----------
    config : Config
        The whole configuration.
    database : Database
        Says which bundles read silently.
    """

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database
        self._children: dict[int, _Child] = {}
        self._context = multiprocessing.get_context("spawn")

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        try:
            while not stop.is_set():
                try:
                    self.look_after()
                except SQLAlchemyError:
                    logger.exception("database is away")
                stop.wait(POLL_SECONDS)
        finally:
            for child in self._children.values():
                child.process.terminate()
            for child in self._children.values():
                _end(child)

    def look_after(self) -> None:
        """Start the processes that are wanted, end the others, and switch off a bundle whose process died."""
        with self._database.read() as session:
            wanted = {row.id: row for row in registry.shadows(session)}
        for number, child in list(self._children.items()):
            code = child.process.exitcode
            if number not in wanted:
                child.process.terminate()
                _end(self._children.pop(number))
            elif code in _ORDERLY:
                if time.monotonic() - child.started > RESTART_SECONDS:
                    _end(self._children.pop(number))
            elif code is not None:
                _end(self._children.pop(number))
                logger.error("shadow died", extra={"model_id": number, "exit_code": code})
                shadow_child.switch_off(self._database, number, _why(code))
                del wanted[number]
        for number, row in wanted.items():
            if number not in self._children:
                self._start(row)

    def offer(self, instance_id: int, network_input: NDArray[np.uint8]) -> None:
        """Hand a film over as it was prepared; never waits. One that is not taken is prepared again there."""
        for child in list(self._children.values()):
            if child.edge == network_input.shape[0]:
                try:
                    child.offers.put_nowait((instance_id, network_input))
                except (queue.Full, ValueError, OSError):  # ended meanwhile
                    continue

    def pids(self) -> dict[int, int]:
        """Process numbers by the bundle's row."""
        return {number: child.process.pid or 0 for number, child in self._children.items()}

    def _start(self, row: ModelBundle) -> None:
        try:
            edge = read_description(Path(row.path)).input_edge
        except BundleError as error:
            shadow_child.switch_off(self._database, row.id, str(error))
            return
        offers: Queue[shadow_child.Offer] = self._context.Queue(_OFFERS)
        process = self._context.Process(
            target=shadow_child.main, args=(self._config, row.id, offers), name=f"shadow-{row.id}", daemon=True
        )
        process.start()
        logger.info("shadow started", extra={"model_id": row.id, "pid": process.pid})
        self._children[row.id] = _Child(row.id, edge, process, offers)


def _why(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, out of memory perhaps"
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with code {code}"


def _end(child: _Child) -> None:
    child.process.join(STOP_SECONDS)
    if child.process.is_alive():
        child.process.kill()
        child.process.join()
    # What was not taken is in the database as a film to be read.
    child.offers.cancel_join_thread()
    child.offers.close()
