"""The listener as a process."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

from pynetdicom.ae import ApplicationEntity

from clearfilm.config import Config
from clearfilm.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from clearfilm.errors import StartupError
from clearfilm.files import fsync_folder
from db import schema
from db.processes import Heartbeat
from db.session import Database
from storescp import claims, hardening, recovery
from storescp.commits import Commits
from storescp.handlers import Node
from storescp.hardening import MAXIMUM_PDU, Server
from storescp.storage import FILMS

logger = logging.getLogger(__name__)

_DRAIN_SECONDS = 10.0
_POLL_SECONDS = 0.2


class RunningListener:
    """A listener that serves in threads of this process.

    Parameters
    ----------
    config : Config
    database : Database, optional
        Another one than the configuration's, with other timeouts.

    Raises
    ------
    StartupError
        If the port is in use, the data folder not writable or the database not usable.
    """

    def __init__(self, config: Config, database: Database | None = None) -> None:
        hardening.silence()
        self._database = database or Database(config.database_url)
        schema.prepare(self._database)
        _require_folder(config)
        quiet = timedelta(seconds=config.study.quiet_seconds)
        node = Node(config, self._database, Commits(self._database, quiet))
        self._server = _bind(config, node)
        self.port = int(self._server.server_address[1])
        self._address = config.node.address
        try:
            self._claim = claims.claim(config.node.address, self.port, config.data_folder)
        except StartupError:
            self._server.server_close()
            raise
        node.steering.turn()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), name="accept"),
            threading.Thread(target=self._reconcile, args=(config, quiet), name="reconciliation"),
            threading.Thread(target=node.steering.run, args=(self._stop,), name="steering"),
        ]
        for thread in self._threads:
            thread.start()
        self._heartbeat = Heartbeat(self._database, "storescp", self._describe)
        self._heartbeat.start()

    @property
    def associations(self) -> int:
        """Connections that are open."""
        return self._server.present

    def _describe(self) -> dict[str, Any]:
        return {"address": self._address, "port": self.port, "associations": self.associations}

    def stop(self, seconds: float = _DRAIN_SECONDS) -> bool:
        """Accept nothing more, let running messages end, close.

        Returns
        -------
        bool
            Whether every association had ended after `seconds`.
        """
        ended = self._server.drain(seconds)
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._heartbeat.stop()
        if self._claim is not None:
            self._claim.close()
        self._database.close()
        return ended

    def _reconcile(self, config: Config, quiet: timedelta) -> None:
        try:
            repairs = recovery.reconcile(config.data_folder, self._database, quiet=quiet, stop=self._stop)
        except Exception:
            logger.exception("files and rows could not be compared")
        else:
            logger.info("files and rows compared", extra={"repairs": repairs})


def serve(config: Config, ready: Callable[[int], None] | None = None) -> int:
    """Listen until SIGTERM or SIGINT.

    Parameters
    ----------
    config : Config
        With `node.port` 0 the system chooses a port.
    ready : callable, optional
        Called with the port when associations are accepted.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    StartupError
        If the port is in use, the data folder not writable or the database not usable.
    """
    os.umask(0o077)
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    listener = RunningListener(config)
    # What has been loaded stays; collections need not look at it again.
    gc.collect()
    gc.freeze()
    logger.info("listening", extra={"address": config.node.address, "port": listener.port})
    if ready is not None:
        ready(listener.port)
    stop.wait()
    logger.info("stopping", extra={"complete": listener.stop()})
    return 0


def _bind(config: Config, node: Node) -> Server:
    ae = ApplicationEntity(config.node.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = MAXIMUM_PDU
    ae.maximum_associations = 1_000_000  # connections are counted instead, before they cost anything
    address = (config.node.address, config.node.port)
    try:
        return Server(ae, address, config.listener, node, node.handlers)
    except OSError as error:
        place = f"{config.node.address}:{config.node.port}"
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"{place} is in use by another program; change node.port or stop it") from error
        raise StartupError(f"cannot listen on {place}: {error.strerror or error}") from error


def _require_folder(config: Config) -> None:
    folder = config.data_folder / FILMS
    try:
        # All of them now, so that no film waits for a new folder to become durable.
        for number in range(256):
            (folder / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}"
        probe.touch()
        probe.unlink()
        fsync_folder(folder)
    except OSError as error:
        raise StartupError(f"the data folder is not writable: {error.strerror}: {error.filename}") from error
