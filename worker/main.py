"""The processes of this folder: `worker`, `deliver` and `schedule`."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from clearfilm.config import Config
from clearfilm.process import notify_ready, stop_event
from db import schema
from db.processes import Heartbeat
from db.session import Database
from worker.leases import Leases
from worker.store import Store

logger = logging.getLogger(__name__)


def analyse_and_conclude(config: Config) -> None:
    """Run until SIGTERM: films to readings, quiet studies to results.

    Parameters
    ----------
    config : Config
        The whole configuration.

    Raises
    ------
    StartupError, BundleError
        If the process cannot begin to work.
    """
    # Torch comes with these; the other processes of this module start without it.
    from worker.analyse import Analyser
    from worker.conclude import Concluder
    from worker.decoder import DecoderPool
    from worker.model import ActiveModel
    from worker.shadow import Shadows

    stop = stop_event()
    database = _open(config)
    store = Store(config.data_folder)
    with ExitStack() as stack:
        leases = stack.enter_context(Leases(database))
        decoders = stack.enter_context(DecoderPool(config))
        model = ActiveModel(config, database)
        concluder = Concluder(config, database, store, leases)
        shadows = Shadows(config, database)
        analyser = Analyser(config, database, store, decoders, model, leases, shadows.offer)
        device = model.current().engine.describe()
        stack.enter_context(Heartbeat(database, "worker", lambda: {"device": device}))
        logger.info("worker ready", extra={"device": device})
        notify_ready()
        _run_together([concluder.run, analyser.run, shadows.run], stop)
    database.close()


def deliver(config: Config) -> None:
    """Run until SIGTERM: waiting results to every destination. Raises StartupError."""
    from worker.commitment import Notary
    from worker.deliver import Courier

    stop = stop_event()
    database = _open(config)
    store = Store(config.data_folder)
    with Heartbeat(database, "deliver"), Leases(database) as leases:
        title = config.node.ae_title
        loops: list[Callable[[threading.Event], None]] = [
            Courier(entry, title, database, store, leases).run for entry in config.destinations
        ]
        loops += [Notary(entry, title, database).run for entry in config.destinations if entry.storage_commitment]
        notify_ready()
        _run_together(loops, stop)
    database.close()


def schedule(config: Config, config_path: Path) -> None:
    """Run until SIGTERM: everything that happens by the clock. Raises StartupError.

    Parameters
    ----------
    config : Config
        The whole configuration.
    config_path : pathlib.Path
        Its file, for child processes.
    """
    from worker.retraining import Retraining
    from worker.schedule import Schedule

    stop = stop_event()
    database = _open(config)
    with database.only_one("schedule"), Heartbeat(database, "schedule"):
        notify_ready()
        retraining = Retraining(config, config_path, database, stop)
        Schedule(config, database, retraining).run(stop)
    database.close()


def _open(config: Config) -> Database:
    database = Database(config.database_url)
    schema.prepare(database)
    return database


def _run_together(loops: Sequence[Callable[[threading.Event], None]], stop: threading.Event) -> None:
    """Run every loop in a thread; one that dies of an error stops all, and the process fails loudly."""
    errors: list[BaseException] = []

    def guarded(loop: Callable[[threading.Event], None]) -> None:
        try:
            loop(stop)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=guarded, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
