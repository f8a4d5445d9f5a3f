"""Bounds on connections: uvicorn alone lets silent and slow ones stay for ever, until no file descriptor is left.

A connection in silence, a request that drips, a body that does not end and an answer that nobody reads are each cut.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the first moment, or the end of the answer before, to the last byte of a request (at most 1 MB).
REQUEST_SECONDS = 30.0
# Without the other side taking anything of an answer.
READ_SECONDS = 30.0
# Well below the 4,096 descriptors of the service. An open page has one, and up to six while it loads; a terminal
# server has many people at one address.
MOST, MOST_OF_ADDRESS = 1024, 256


def bounded(proxies: Sequence[str]) -> type[asyncio.Protocol]:
    """The class of connections; all people come from a proxy's address, so these are bounded by their sum only."""
    networks = [ipaddress.ip_network(entry, strict=False) for entry in proxies]

    class Connection(_Bounded):
        def _is_proxy(self, address: str) -> bool:
            try:
                found = ipaddress.ip_address(address)
            except ValueError:
                return False
            return any(found in network for network in networks)

    return Connection


class _Bounded(H11Protocol):
    """Uses of uvicorn's class what is there since its first versions: `connections`, `client`, `conn`, `transport`."""

    _request_ends: asyncio.TimerHandle | None = None
    _reading_ends: asyncio.TimerHandle | None = None

    def _is_proxy(self, address: str) -> bool:
        raise NotImplementedError

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._is_one_too_many():
            transport.abort()
            return
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Of h11: IDLE is between requests or within a head, SEND_BODY within a body.
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._await_request()
        else:
            self._stop_awaiting_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading_ends is None:
            self._reading_ends = self.loop.call_later(READ_SECONDS, self._cut)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_awaiting_reader()

    def _await_request(self) -> None:
        """One span for the whole request, however many pieces it comes in."""
        if self._request_ends is None:
            self._request_ends = self.loop.call_later(REQUEST_SECONDS, self._cut)

    def _is_one_too_many(self) -> bool:
        if len(self.connections) > MOST:
            return True
        if self.client is None or self._is_proxy(self.client[0]):
            return False
        same = sum(1 for other in self.connections if _address(other) == self.client[0])
        return same > MOST_OF_ADDRESS

    def _cut(self) -> None:
        self._stop_timers()
        self.transport.abort()

    def _stop_timers(self) -> None:
        self._stop_awaiting_request()
        self._stop_awaiting_reader()

    def _stop_awaiting_request(self) -> None:
        if self._request_ends is not None:
            self._request_ends.cancel()
            self._request_ends = None

    def _stop_awaiting_reader(self) -> None:
        if self._reading_ends is not None:
            self._reading_ends.cancel()
            self._reading_ends = None


def _address(connection: Any) -> str | None:
    return connection.client[0] if connection.client else None
