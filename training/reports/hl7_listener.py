"""A listener for HL7 v2 over MLLP. A message is acknowledged with AA only when its reports are committed."""

import asyncio
import ipaddress
import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from clearfilm.config import ReportListener
from clearfilm.errors import ConfigurationError, RefusedReport, StartupError
from db import reports
from db.session import Database
from training.labels.labeller import Labeller, label_current
from training.reports import hl7_message
from training.reports.hl7_message import RefusedMessage

logger = logging.getLogger(__name__)

_START, _END = b"\x0b", b"\x1c\r"
_LABEL_SECONDS = 5.0
_NOBODY = ["", "", "", "", ""]


def listen(
    settings: ReportListener,
    database: Database,
    labeller: Labeller,
    stop: threading.Event,
    ready: Callable[[int], None],
) -> None:
    """Take reports until `stop` is set.

    Parameters
    ----------
    settings : ReportListener
        With port 0 the system chooses one.
    database : Database
    labeller : Labeller
        For the reports that have come.
    stop : threading.Event
    ready : callable
        Called with the port when connections are accepted.

    Raises
    ------
    ConfigurationError
        If no sender is listed.
    StartupError
        If the port cannot be had.
    """
    if not settings.senders:
        raise ConfigurationError("reports.listener.senders: list the addresses that may send reports")
    asyncio.run(_Listener(settings, database).serve(stop, labeller, ready))


class _Listener:
    """The connections of one process."""

    def __init__(self, settings: ReportListener, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._networks = [ipaddress.ip_network(network, strict=False) for network in settings.senders]
        self._limit = settings.maximum_message_kilobytes * 1024
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, stop: threading.Event, labeller: Labeller, ready: Callable[[int], None]) -> None:
        address, port = self._settings.address, self._settings.port
        try:
            server = await asyncio.start_server(self._accept, address, port, limit=self._limit)
        except OSError as error:
            raise StartupError(f"cannot listen on {address}:{port}: {error.strerror or error}") from error
        async with server:
            ready(int(server.sockets[0].getsockname()[1]))
            labelling = asyncio.create_task(self._label(labeller))
            await asyncio.to_thread(stop.wait)
            server.close()
            labelling.cancel()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(labelling, *self._connections, return_exceptions=True)

    async def _label(self, labeller: Labeller) -> None:
        """Labels are made apart, so that a sender never waits for them."""
        while True:
            try:
                await asyncio.to_thread(label_current, self._database, labeller)
            except SQLAlchemyError:
                logger.exception("reports could not be labelled; tried again")
            await asyncio.sleep(_LABEL_SECONDS)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self._is_allowed(writer):
                await self._converse(reader, writer)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the sender went away or said nothing; it sends again what was not acknowledged
        except asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    def _is_allowed(self, writer: asyncio.StreamWriter) -> bool:
        address = str(writer.get_extra_info("peername")[0]).partition("%")[0]
        source = ipaddress.ip_address(address)
        source = getattr(source, "ipv4_mapped", None) or source
        if not any(source in network for network in self._networks):
            logger.warning("report sender refused: address is not listed", extra={"address": address})
            return False
        if len(self._connections) > self._settings.maximum_connections:
            logger.warning("report sender refused: too many connections", extra={"address": address})
            return False
        return True

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(self._settings.idle_timeout_seconds):
                await _skip_to_start(reader)
            try:
                async with asyncio.timeout(self._settings.message_timeout_seconds):
                    block = (await reader.readuntil(_END))[: -len(_END)]
                # What stood before another start was never ended, nor answered: its sender has begun anew.
                block = block.rpartition(_START)[2]
            except asyncio.LimitOverrunError:
                reason = f"the message is larger than {self._limit} bytes"
                await self._answer(writer, hl7_message.acknowledgement("AR", _NOBODY, reason).encode())
                logger.warning("report message refused", extra={"reason": reason})
                await self._hang_up(reader, writer)
                return
            await self._answer(writer, await self._store(block))

    async def _hang_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Close so that the sender reads our answer: unread bytes would reset the connection."""
        writer.write_eof()
        async with asyncio.timeout(self._settings.message_timeout_seconds):
            while await reader.read(1 << 16):
                continue

    async def _answer(self, writer: asyncio.StreamWriter, text: bytes) -> None:
        writer.write(_START + text + _END)
        async with asyncio.timeout(self._settings.message_timeout_seconds):
            await writer.drain()

    async def _store(self, block: bytes) -> bytes:
        """The acknowledgement of a message whose reports are committed, or why they are not."""
        try:
            message = hl7_message.parse(block, self._settings.encoding)
        except RefusedMessage as error:
            logger.warning("report message refused", extra={"reason": str(error)})
            return hl7_message.acknowledgement("AR", hl7_message.header_of(block), str(error)).encode()
        try:
            received = message.reports(self._settings.accession_field)
            # Shielded: a shut-down waits for the commit.
            added = await asyncio.shield(asyncio.to_thread(self._commit, received))
        except RefusedReport as error:
            logger.warning("report message refused", extra={"reason": str(error)})
            return message.acknowledge("AE", str(error))
        except SQLAlchemyError:
            logger.exception("reports could not be stored")
            return message.acknowledge("AE", "not stored, send again")
        logger.info("reports received", extra={"added": added, "known": len(received) - added})
        return message.acknowledge("AA")

    def _commit(self, received: list[reports.ReceivedReport]) -> int:
        with self._database.begin() as session:
            now = self._database.now(session)
            return sum(reports.record(session, report, now=now) for report in received)


async def _skip_to_start(reader: asyncio.StreamReader) -> None:
    """Bytes between messages are thrown away, as MLLP has it."""
    while await reader.readexactly(1) != _START:
        continue
