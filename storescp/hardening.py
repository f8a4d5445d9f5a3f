"""What this node changes in pynetdicom 3.0.4, in one place.

pynetdicom stays the protocol engine: PDU grammar, state machine, negotiation, release and abort. Its
reactors are replaced, because they poll every millisecond and wait without a limit inside a PDU, and so
is the way of messages: a data set goes to its receiver fragment by fragment and is never held as a whole.
The overridden names are private: the version is pinned, and each has a test that fails if it moves.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol, cast

from pynetdicom import _config
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.events import EVT_RELEASED, EventHandlerType, NotificationEvent, trigger
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from clearfilm.config import Listener
from clearfilm.dicom import statuses
from db.associations import Call
from storescp import dimse
from storescp.dimse import ProtocolViolation, Request
from storescp.policy import Admission

logger = logging.getLogger(__name__)

MAXIMUM_PDU = 131_072
MAXIMUM_COMMAND_SET = 65_536
MESSAGE_SECONDS = 600.0
"""Longest time for one message, so that dripping complete PDUs holds no slot for ever."""
_BACKLOG = 128
_WAKE_SECONDS = 0.5
"""Longest wait of a reactor before it looks at its timers and at the server's wish to stop."""
_PDU_HEADER = struct.Struct(">BxL")
_PDV_HEADER = struct.Struct(">LBB")
_PDU_TYPES = range(0x01, 0x08)
_P_DATA_TF = 0x04
_TIMEVAL = struct.Struct("ll")
_AWAITING_REQUEST = "Sta2"
_ESTABLISHED = "Sta6"
_AWAITING_CLOSE = "Sta13"


class Store(Protocol):
    """One C-STORE request being served."""

    def append(self, fragment: memoryview) -> None:
        """Take the next bytes of the data set; the buffer is reused afterwards.

        ProtocolViolation ends the association.
        """

    def finish(self) -> tuple[int, str]:
        """The data set is complete: status and Error Comment of the answer."""

    def discard(self) -> None:
        """The rest will not come: leave nothing behind."""


class Services(Protocol):
    """What the node does with requests."""

    def open_store(self, association: AcceptedAssociation, request: Request, context_id: int) -> Store:
        """A C-STORE command has come; its data set follows."""

    def open_report(self, association: AcceptedAssociation, context_id: int) -> Store:
        """An N-EVENT-REPORT command has come; its Event Information follows."""

    def ended(self, association: AcceptedAssociation) -> None:
        """An association has ended, in whatever way."""


def silence() -> None:
    """Switch off pynetdicom's own logging of messages and identifiers, at any level."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    # What matters is logged here, without tracebacks that may quote what a peer sent.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


class MonotonicTimer(Timer):
    """A timer that does not depend on the wall clock."""

    @property
    def remaining(self) -> float:
        """Seconds left; 1 if the timer never expires."""
        if self.timeout is None:
            return 1.0
        if self._start_time is None:
            return float(self.timeout)
        end = time.monotonic() if self._end_time is None else self._end_time
        return float(self.timeout) - (end - self._start_time)

    def start(self) -> None:
        """Start again from the full time."""
        self._start_time = time.monotonic()
        self._end_time = None

    def stop(self) -> None:
        """Hold the time."""
        self._end_time = time.monotonic()


class BoundedSocket(AssociationSocket):
    """A socket whose every wait has an end."""

    @property
    def ready(self) -> bool:
        """Whether there is something to read; by poll, which takes descriptors above 1023 too."""
        if self.socket is None or not self._is_connected:
            return False
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def limit(self, seconds: float) -> None:
        """Let the kernel end a receive or send that takes longer."""
        if self.socket is None:
            raise ConnectionError("closed")
        whole = max(1, round(seconds * 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(*divmod(whole, 1_000_000)))

    def receive(self, view: memoryview, deadline: float) -> None:
        """Fill `view`.

        Raises
        ------
        ConnectionError
            If the peer closed before.
        TimeoutError
            If `deadline` (monotonic) passed before.
        """
        filled = 0
        while filled < len(view):
            if self.socket is None:
                raise ConnectionError("closed")
            try:
                # One system call for the whole in the usual case; shorter on timeout, signal or close.
                count = self.socket.recv_into(view[filled:], 0, socket.MSG_WAITALL)
            except BlockingIOError as error:
                raise TimeoutError("PDU not complete in time") from error
            if not count:
                raise ConnectionError("closed by the peer")
            filled += count
            if filled < len(view) and time.monotonic() >= deadline:
                raise TimeoutError("PDU not complete in time")


class UpperLayer(DULServiceProvider):
    """The upper layer of one accepted connection. Its thread reads, and serves what it has read.

    While a request is served nothing is read, so that a peer which does not wait for answers fills its
    own buffers and not ours.
    """

    assoc: AcceptedAssociation
    socket: BoundedSocket

    def __init__(self, association: AcceptedAssociation, limits: Listener, services: Services) -> None:
        super().__init__(association)
        self._limits = limits
        self._services = services
        self._idle_timer = MonotonicTimer(limits.idle_timeout_seconds)
        self.artim_timer = MonotonicTimer(limits.association_timeout_seconds)
        self._buffer = memoryview(bytearray(MAXIMUM_PDU))
        self._waking = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._command = bytearray()
        self._context_id = 0
        self._message_started: float | None = None
        self._serving = False
        self._request: Request | None = None
        self._store: Store | None = None
        self.daemon = True

    @property
    def busy(self) -> bool:
        """Whether a message is under way."""
        return self._message_started is not None

    def run_reactor(self) -> None:
        """Wait for the peer, the user or a timer, and let the state machine act on it."""
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        try:
            while not self._kill_thread:
                self._turn()
        except Exception:
            logger.exception("association ended by an unexpected error", extra={"peer": self.assoc.peer})
            self.assoc.is_aborted = True
            self.assoc.is_established = False
            self.assoc._kill = True
            self._abort(0x00)
        finally:
            self._kill_thread = True
            if self._store is not None:
                self._store.discard()
            # The association's thread may still be waiting for a request that will never come.
            self.to_user_queue.put(cast(Any, None))
            self._buffer = memoryview(b"")
            with self._waking:
                os.close(self._wake)
                self._wake = -1

    def send_pdu(self, primitive: Any) -> None:
        """Queue a primitive for the peer and wake the reactor."""
        super().send_pdu(primitive)
        self._wake_up()

    def kill_dul(self) -> None:
        """End the reactor."""
        super().kill_dul()
        self._wake_up()

    def stop_dul(self) -> bool:
        """End the reactor if the connection is closed."""
        self._wake_up()
        return bool(super().stop_dul())

    def wait_for_user(self, seconds: float) -> None:
        """Return when a primitive waits for the association, or after `seconds`."""
        arrived = self.to_user_queue.not_empty
        with arrived:
            if not self.to_user_queue.queue:
                arrived.wait(seconds)

    def idle_timer_expired(self) -> bool:
        """Whether the peer has been silent for too long; our own work does not count."""
        return not self._serving and super().idle_timer_expired()

    def _turn(self) -> None:
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        if not self._process_recv_primitive():
            if self.event_queue.empty() and self.state_machine.current_state != _AWAITING_CLOSE:
                self._wait()
            if self.assoc._server.stopping and self.state_machine.current_state == _AWAITING_REQUEST:
                self.socket.close()
            if self._is_transport_event():
                self._idle_timer.restart()
        if not self.event_queue.empty():
            self.state_machine.do_action(self.event_queue.get(block=False))

    def _wait(self) -> None:
        seconds = _WAKE_SECONDS
        if self.state_machine.current_state == _AWAITING_REQUEST:
            seconds = max(0.0, min(seconds, self.artim_timer.remaining))
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self.socket.socket is not None:
            poll.register(self.socket.socket, select.POLLIN)
        if any(descriptor == self._wake for descriptor, _ in poll.poll(seconds * 1000)):
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)

    def _wake_up(self) -> None:
        with self._waking:
            if self._wake >= 0 and threading.current_thread() is not self:
                os.eventfd_write(self._wake, 1)

    def _read_pdu_data(self) -> None:
        """Read one PDU: message fragments are taken here, everything else goes to the state machine."""
        try:
            self._read_pdu()
        except ProtocolViolation as violation:
            logger.warning("association aborted", extra={"peer": self.assoc.peer, "reason": str(violation)})
            self._abort(0x06)
        except OSError as error:
            if not isinstance(error, ConnectionError):
                logger.warning("connection given up", extra={"peer": self.assoc.peer, "reason": str(error)})
            self.socket.close()

    def _read_pdu(self) -> None:
        state = self.state_machine.current_state
        seconds = self._limits.pdu_timeout_seconds
        if state == _AWAITING_REQUEST:
            seconds = min(seconds, max(0.001, self.artim_timer.remaining))
        if self._message_started is not None:
            seconds = min(seconds, self._message_started + MESSAGE_SECONDS - time.monotonic())
            if seconds <= 0:
                raise ProtocolViolation("the message takes too long")
        deadline = time.monotonic() + seconds
        self.socket.limit(seconds)
        header = self._buffer[: _PDU_HEADER.size]
        self.socket.receive(header, deadline)
        kind, length = _PDU_HEADER.unpack(header)
        if kind not in _PDU_TYPES:
            raise ProtocolViolation(f"unknown PDU type {kind:#04x}")
        if length > MAXIMUM_PDU:
            raise ProtocolViolation(f"a PDU of {length} bytes is announced, {MAXIMUM_PDU} are allowed")
        if kind == _P_DATA_TF and state == _ESTABLISHED:
            body = self._buffer[:length]
            self.socket.receive(body, deadline)
            self._take(body)
            return
        pdu = bytearray(header) + bytes(length)
        self.socket.receive(memoryview(pdu)[_PDU_HEADER.size :], deadline)
        try:
            decoded, event = self._decode_pdu(pdu)
        except Exception as error:
            # pynetdicom's decoders raise whatever the bytes lead them to.
            raise ProtocolViolation(f"a PDU of type {kind} cannot be decoded") from error
        self._recv_pdu.put(decoded)
        self.event_queue.put(event)

    def _take(self, body: memoryview) -> None:
        """Take the fragments of a P-DATA-TF (PS3.8 9.3.5, E.2)."""
        if not body:
            raise ProtocolViolation("a P-DATA-TF without a fragment")
        offset = 0
        while offset < len(body):
            if offset + _PDV_HEADER.size > len(body):
                raise ProtocolViolation("a fragment is cut short")
            length, context_id, control = _PDV_HEADER.unpack_from(body, offset)
            end = offset + 4 + length
            if length < 2 or end > len(body):
                raise ProtocolViolation("a fragment leads outside its PDU")
            self._take_fragment(context_id, control, body[offset + _PDV_HEADER.size : end])
            offset = end

    def _take_fragment(self, context_id: int, control: int, fragment: memoryview) -> None:
        is_command, is_last = control & 1, control & 2
        if self._message_started is None:
            self._message_started = time.monotonic()
            self._context_id = context_id
        if context_id != self._context_id:
            raise ProtocolViolation("a message changes its presentation context")
        if bool(is_command) == (self._store is not None):
            raise ProtocolViolation("command and data set are out of order")
        if self._store is not None:
            self._store.append(fragment)
            if is_last:
                self._finish_store(self._store)
            return
        if len(self._command) + len(fragment) > MAXIMUM_COMMAND_SET:
            raise ProtocolViolation(f"a command set of more than {MAXIMUM_COMMAND_SET} bytes")
        self._command += fragment
        if is_last:
            self._begin()

    def _begin(self) -> None:
        """The command is complete: answer it, or make ready for its data set."""
        if self._context_id not in self.assoc._accepted_cx:
            raise ProtocolViolation("a message comes on a presentation context that was not accepted")
        request = dimse.decode(self._command)
        if request.command == dimse.C_ECHO_RQ and not request.has_data_set:
            self._answer(request, statuses.SUCCESS, "")
        elif request.command == dimse.C_STORE_RQ and request.has_data_set:
            self._request = request
            self._store = self._services.open_store(self.assoc, request, self._context_id)
        elif request.command == dimse.N_EVENT_REPORT_RQ and request.has_data_set:
            self._request = request
            self._store = self._services.open_report(self.assoc, self._context_id)
        else:
            raise ProtocolViolation("only C-ECHO, C-STORE and storage commitment reports are served")

    def _finish_store(self, store: Store) -> None:
        assert self._request is not None
        self._serving = True
        try:
            status, comment = store.finish()
        finally:
            self._serving = False
            self._idle_timer.restart()
            self._store = None
        self._answer(self._request, status, comment)

    def _answer(self, request: Request, status: int, comment: str) -> None:
        """Send an answer. Action DT-1 of the state machine (PS3.8 9.2) does nothing else in this state."""
        answer = dimse.response(request, self._context_id, status, comment)
        self._message_started = None
        self._command.clear()
        self.socket.limit(self._limits.pdu_timeout_seconds)
        self.socket.send(answer)

    def _abort(self, reason: int) -> None:
        """Send an A-ABORT of the service provider (PS3.8 9.3.8) and close at once."""
        pdu = A_ABORT_RQ()
        pdu.source = 0x02
        pdu.reason_diagnostic = reason
        with suppress(OSError):
            if self.socket.socket is not None:
                self.socket.limit(1.0)
                self._send(pdu)
        self.socket.close()


class AcceptedAssociation(Association):
    """An association that a peer asked for."""

    dul: UpperLayer
    _server: Server

    def __init__(self, server: Server) -> None:
        super().__init__(server.ae, MODE_ACCEPTOR)
        self._server = server
        self.admission = Admission()
        self.call: Call | None = None  # none: it was not accepted
        self.dul = UpperLayer(self, server.limits, server.services)
        # The setters hand these on to the timers of the upper layer.
        self.acse_timeout = server.limits.association_timeout_seconds
        self.network_timeout = server.limits.idle_timeout_seconds

    @property
    def peer(self) -> str:
        """Address of the peer."""
        assert self.requestor.address_info is not None
        return self.requestor.address_info.address

    def run(self) -> None:
        """Run, and give the connection's place free at the end, whatever the end is."""
        try:
            super().run()
        finally:
            self._server.services.ended(self)
            self._server.leave(self.peer)

    def _run_reactor(self) -> None:
        """Watch for release, abort, silence and the server's wish to stop; requests are served elsewhere."""
        self._is_paused = False
        while not self._kill:
            self.dul.wait_for_user(_WAKE_SECONDS)
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released = True
                self.is_established = False
                trigger(self, EVT_RELEASED, {})
                self.kill()
            elif self.acse.is_aborted():
                self.is_aborted = True
                self.is_established = False
                self.kill()
            elif not self.dul.is_alive():
                self.kill()
            elif self.dul.idle_timer_expired() or (self._server.stopping and not self.dul.busy):
                # The blocking abort of pynetdicom adds a sleep.
                self._abort_nonblocking()
                self.kill()


class Connection(RequestHandler):
    """Makes the association of one connection."""

    server: Server

    def _create_association(self) -> AcceptedAssociation:
        server = self.server
        association = AcceptedAssociation(server)
        association.name = f"AcceptorThread@{datetime.now(UTC):%Y%m%d%H%M%S}"
        association.set_socket(BoundedSocket(association, client_socket=self.request))
        acceptor = association.acceptor
        acceptor.maximum_length = MAXIMUM_PDU
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = server.ae.implementation_class_uid
        acceptor.implementation_version_name = server.ae.implementation_version_name
        acceptor.supported_contexts = []
        association.requestor.address_info = self.remote
        for event, handlers in server._handlers.items():
            if isinstance(event, NotificationEvent):
                for function, arguments in cast(Any, handlers):
                    association.bind(event, function, arguments)
            elif handlers:
                association.bind(event, *cast(Any, handlers))
        return association


class Server(AssociationServer):
    """Accepts connections, within limits, on a port that several processes may share.

    Parameters
    ----------
    ae : pynetdicom.ae.ApplicationEntity
        With our titles and UIDs.
    address : tuple of str and int
        Where to listen.
    limits : clearfilm.config.Listener
    services : Services
        Serves the requests.
    handlers : list
        pynetdicom's event handlers.
    """

    request_queue_size = _BACKLOG

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        limits: Listener,
        services: Services,
        handlers: list[EventHandlerType],
    ) -> None:
        self.limits = limits
        self.services = services
        self.stopping = False
        self._present: Counter[str] = Counter()
        self._changed = threading.Condition()
        super().__init__(ae, address, ae.ae_title, [], evt_handlers=handlers, request_handler=Connection)

    def server_bind(self) -> None:
        """Share the port with other processes of this user."""
        assert self.socket is not None
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; nothing here may wait for the peer."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Take a place, or refuse by closing when all are taken."""
        address = client_address[0]
        with self._changed:
            if self._present[address] >= self.limits.maximum_connections_per_address:
                return False
            if self._present.total() >= self.limits.maximum_connections:
                return False
            self._present[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Give a place free."""
        with self._changed:
            self._present[address] -= 1
            if self._present[address] <= 0:
                del self._present[address]
            self._changed.notify_all()

    @property
    def present(self) -> int:
        """Open connections."""
        with self._changed:
            return self._present.total()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the association's threads."""
        try:
            super().process_request(request, client_address)
        except Exception:
            self.leave(client_address[0])
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what hindered one connection; the others go on."""
        logger.error("connection not served", exc_info=sys.exception(), extra={"peer": client_address[0]})

    def shutdown(self) -> None:
        """Accept nothing more; the application entity never knew this server."""
        super(AssociationServer, self).shutdown()

    def drain(self, seconds: float) -> bool:
        """Accept nothing more, let running messages end, end the associations.

        Returns
        -------
        bool
            Whether all had ended after `seconds`.
        """
        self.stopping = True
        self.shutdown()
        self.server_close()
        with self._changed:
            return self._changed.wait_for(lambda: not self._present, seconds)
