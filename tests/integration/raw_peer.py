"""A scripted DICOM peer that does exactly what it is told: any bytes, any order, any pause."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

VERIFICATION = "1.2.840.10008.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT = "1.2.840.10008.1.2.1"

RQ, AC, RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND_LAST, DATA_LAST, DATA_MORE, COMMAND_MORE = 3, 2, 0, 1


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def associate_rq(
    calling: str = "MODALITY",
    called: str = "CLEARFILM",
    contexts: Iterable[tuple[int, str]] = ((1, VERIFICATION), (3, DX)),
    syntax: str = EXPLICIT,
) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    body = struct.pack(">Hxx16s16s32x", 1, called.ljust(16).encode(), calling.ljust(16).encode())
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, abstract_syntax in contexts:
        syntaxes = item(0x30, abstract_syntax.encode()) + item(0x40, syntax.encode())
        body += item(0x20, bytes([number, 0, 0, 0]) + syntaxes)
    body += item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"2.25.1"))
    return pdu(RQ, body)


def fragment(context_id: int, control: int, data: bytes) -> bytes:
    """One P-DATA-TF with one fragment (PS3.8 9.3.5)."""
    return pdu(P_DATA, struct.pack(">LBB", len(data) + 2, context_id, control) + data)


def command(values: dict[int, bytes]) -> bytes:
    elements = b"".join(struct.pack("<HHL", 0, tag, len(v)) + v for tag, v in sorted(values.items()))
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def uid(text: str) -> bytes:
    value = text.encode("latin-1")
    return value + b"\0" * (len(value) % 2)


def short(value: int) -> bytes:
    return struct.pack("<H", value)


def echo_command() -> bytes:
    return command({0x0002: uid(VERIFICATION), 0x0100: short(0x30), 0x0110: short(1), 0x0800: short(0x0101)})


def store_command(sop_class: str, sop_instance: str) -> bytes:
    return command(
        {
            0x0002: uid(sop_class),
            0x0100: short(1),
            0x0110: short(1),
            0x0700: short(0),
            0x0800: short(1),
            0x1000: uid(sop_instance),
        }
    )


@dataclass(frozen=True)
class Answer:
    """Status and Error Comment of a response."""

    status: int
    comment: str


class RawPeer:
    """One connection. Reading ends with None when the other side closes."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", timeout: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes] | None:
        """Type and body of the next PDU; None: closed or reset."""
        header = self._exactly(6)
        if header is None:
            return None
        kind, length = struct.unpack(">BxL", header)
        body = self._exactly(length)
        return None if body is None else (kind, body)

    def closed(self) -> bool:
        """Wait for the end of the connection; whatever comes before is passed over."""
        while True:
            try:
                if not self.socket.recv(65536):
                    return True
            except ConnectionError:
                return True
            except TimeoutError:
                return False

    def associate(self, **how: object) -> tuple[int, bytes] | None:
        self.send(associate_rq(**how))  # type: ignore[arg-type]
        return self.receive()

    def accepted(self, **how: object) -> RawPeer:
        answer = self.associate(**how)
        assert answer is not None, "connection closed"
        assert answer[0] == AC, f"PDU type {answer[0]}: {answer[1]!r}"
        return self

    def echo(self, context_id: int = 1) -> Answer:
        self.send(fragment(context_id, COMMAND_LAST, echo_command()))
        return self.answer()

    def store(self, data: bytes, *, instance: str, sop_class: str = DX, context_id: int = 3) -> Answer:
        self.send(fragment(context_id, COMMAND_LAST, store_command(sop_class, instance)))
        for at in range(0, max(1, len(data)), 100_000):
            part = data[at : at + 100_000]
            last = at + len(part) == len(data)
            self.send(fragment(context_id, DATA_LAST if last else DATA_MORE, part))
        return self.answer()

    def answer(self) -> Answer:
        received = self.receive()
        assert received is not None, "connection closed"
        assert received[0] == P_DATA, f"PDU type {received[0]}"
        values = {}
        content, at = received[1][6:], 0
        while at < len(content):
            _, tag, length = struct.unpack_from("<HHL", content, at)
            values[tag] = content[at + 8 : at + 8 + length]
            at += 8 + length
        comment = values.get(0x0902, b"").decode("ascii").rstrip()
        return Answer(int.from_bytes(values[0x0900], "little"), comment)

    def release(self) -> None:
        self.send(pdu(RELEASE_RQ, bytes(4)))
        assert self.receive() == (RELEASE_RP, bytes(4))

    def _exactly(self, count: int) -> bytes | None:
        received = b""
        while len(received) < count:
            try:
                part = self.socket.recv(count - len(received))
            except ConnectionError:
                return None
            if not part:
                return None
            received += part
        return received
