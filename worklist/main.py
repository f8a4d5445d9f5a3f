"""The web pages as a process."""

import errno
import ipaddress
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from clearfilm.config import Config, Worklist
from clearfilm.errors import StartupError
from clearfilm.process import stop_event
from db import schema
from db.processes import Heartbeat
from db.session import Database
from worklist.app import create_app
from worklist.connections import bounded
from worklist.services import Services

logger = logging.getLogger(__name__)

_BACKLOG = 128
_BUSY_SECONDS = 5.0
_DRAIN_SECONDS = 10


class _Server(uvicorn.Server):
    """Tells when it serves, and ends the event streams before it waits for connections to close."""

    def __init__(self, config: uvicorn.Config, services: Services, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._services = services
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._services.hub.close()


def serve(config: Config, ready: Callable[[int], None], config_path: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT.

    Parameters
    ----------
    config : Config
        With `worklist.port` 0 the system chooses a port.
    ready : callable
        Called with the port when pages are served.
    config_path : pathlib.Path, optional
        The configuration's file.

    Raises
    ------
    StartupError
        If the port is in use, certificate or key not readable, or the database not usable.
    """
    stop_event()  # uvicorn raises the signals that it got again at its end
    # A page says after a moment that the database is busy; a person would not wait longer.
    database = Database(config.database_url, busy_timeout_seconds=_BUSY_SECONDS)
    schema.prepare(database)
    app = create_app(config, database, config_path)
    section = config.worklist
    if not (section.certificate or section.trusted_proxies or _is_loopback(section.address)):
        logger.warning("passwords travel unencrypted: set worklist.certificate, or a proxy")
    listening = _bind(section.address, section.port)
    port = listening.getsockname()[1]

    def serves() -> None:
        logger.info("worklist ready", extra={"address": section.address, "port": port})
        ready(port)

    try:
        with Heartbeat(database, "worklist", lambda: {"address": section.address, "port": port}):
            _Server(settings(app, section), app.state.services, serves).run([listening])
    except OSError as error:
        raise StartupError(f"certificate or key cannot be used: {error}") from error
    finally:
        database.close()


def settings(app: FastAPI, section: Worklist) -> uvicorn.Config:
    """How the server works, wherever it listens."""
    return uvicorn.Config(
        app,
        http=bounded(section.trusted_proxies),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        backlog=_BACKLOG,
        proxy_headers=bool(section.trusted_proxies),
        forwarded_allow_ips=list(section.trusted_proxies),
        ssl_certfile=section.certificate,
        ssl_keyfile=section.key,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        h11_max_incomplete_event_size=32_768,
    )


def _bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # With the protocol's name: asyncio leaves Nagle's algorithm on otherwise, which costs each answer 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
    except OSError as error:
        listening.close()
        place = f"{address}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"{place} is in use by another program; change worklist.port or stop it") from error
        raise StartupError(f"cannot listen on {place}: {error.strerror or error}") from error
    return listening


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
