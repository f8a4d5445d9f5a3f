"""A C-STORE sender that costs next to nothing: PDUs encoded beforehand, only the UIDs change.

All receivers see the same bytes at the same pace, and the sender is never the bottleneck.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

_CONTEXT_ID = 1
_PLACE = b"987654321987"
_ROOT = "2.25.77000"
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"


def film(edge: int, noise: bytes) -> bytes:
    """An encoded DX data set of `edge` × `edge` 16-bit pixels; each UID ends in a place for a number."""
    ds = Dataset()
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = f"{_ROOT}.3.{_PLACE.decode()}"
    ds.StudyDate = "20240102"
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.PatientName = "Bench^Receive"
    ds.PatientID = _PLACE.decode()
    ds.BodyPartExamined = "CHEST"
    ds.ViewPosition = "PA"
    ds.StudyInstanceUID = f"{_ROOT}.1.{_PLACE.decode()}"
    ds.SeriesInstanceUID = f"{_ROOT}.2.{_PLACE.decode()}"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = ds.Columns = edge
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 0
    ds.PixelData = (noise * (edge * edge * 2 // len(noise) + 1))[: edge * edge * 2]
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, ds)
    return stream.getvalue()


@dataclass(frozen=True)
class Outcome:
    """What the receiver answered."""

    objects: int
    seconds: float
    refused: int


def send(port: int, ae_title: str, data_set: bytes, *, objects: int, associations: int, first: int) -> Outcome:
    """Send `objects` films, numbered from `first`, shared by `associations` at once."""
    shares = [range(first + k, first + objects, associations) for k in range(associations)]
    refused = [0] * associations
    ready = threading.Barrier(associations + 1)

    def run(k: int) -> None:
        with _Association(port, ae_title) as association:
            message = association.message(data_set)
            ready.wait()
            refused[k] = sum(association.store(message, number) != 0 for number in shares[k])

    threads = [threading.Thread(target=run, args=(k,)) for k in range(associations)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return Outcome(objects, time.perf_counter() - started, sum(refused))


@dataclass(frozen=True)
class _Message:
    """An encoded C-STORE-RQ and the offsets of its numbers."""

    content: bytearray
    places: tuple[int, ...]


class _Association:
    def __init__(self, port: int, ae_title: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(_request(ae_title))
        kind, accepted = self._pdu()
        if kind != 2:
            raise ConnectionError(f"association refused: PDU type {kind}")
        at = accepted.index(b"\x51\x00\x00\x04")
        self._maximum = struct.unpack_from(">L", accepted, at + 4)[0] or 131_072

    def __enter__(self) -> _Association:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.sendall(struct.pack(">BxLxxxx", 5, 4))
        self._pdu()
        self._socket.close()

    def message(self, data_set: bytes) -> _Message:
        content = bytearray(_pdus(_command(), 3, self._maximum))
        content += _pdus(data_set, 2, self._maximum)
        places, at = [], content.find(_PLACE)
        while at >= 0 and len(places) < 5:  # command, and four of the data set
            places.append(at)
            at = content.find(_PLACE, at + len(_PLACE))
        return _Message(content, tuple(places))

    def store(self, message: _Message, number: int) -> int:
        """Send one film; the status of the answer."""
        digits = b"%012d" % (10**11 + number)
        for place in message.places:
            message.content[place : place + len(digits)] = digits
        self._socket.sendall(message.content)
        kind, answer = self._pdu()
        if kind != 4:
            raise ConnectionError(f"no answer: PDU type {kind}")
        at = answer.index(b"\x00\x00\x00\x09\x02\x00\x00\x00")
        return int.from_bytes(answer[at + 8 : at + 10], "little")

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            part = self._socket.recv(count - len(received))
            if not part:
                raise ConnectionError("the receiver closed the connection")
            received += part
        return received


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _request(ae_title: str) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    context = (
        bytes([_CONTEXT_ID, 0, 0, 0])
        + _item(0x30, DigitalXRayImageStorageForPresentation.encode())
        + _item(0x40, ExplicitVRLittleEndian.encode())
    )
    user = _item(0x51, struct.pack(">L", 131_072)) + _item(0x52, f"{_ROOT}.9".encode())
    body = (
        struct.pack(">Hxx16s16s32x", 1, ae_title.ljust(16).encode(), b"BENCH".ljust(16))
        + _item(0x10, _APPLICATION_CONTEXT)
        + _item(0x20, context)
        + _item(0x50, user)
    )
    return struct.pack(">BxL", 1, len(body)) + body


def _command() -> bytes:
    """C-STORE-RQ (PS3.7 9.3.1.1), implicit little endian."""
    sop_class = DigitalXRayImageStorageForPresentation.encode()
    instance = f"{_ROOT}.3.".encode() + _PLACE
    values = {
        0x0002: sop_class + b"\0" * (len(sop_class) % 2),
        0x0100: struct.pack("<H", 0x0001),
        0x0110: struct.pack("<H", 1),
        0x0700: struct.pack("<H", 2),
        0x0800: struct.pack("<H", 1),
        0x1000: instance + b"\0" * (len(instance) % 2),
    }
    elements = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in values.items())
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def _pdus(content: bytes, control: int, maximum: int) -> bytes:
    """P-DATA-TF PDUs with one fragment each (PS3.8 9.3.5)."""
    size = maximum - 6
    parts = []
    for at in range(0, len(content), size):
        fragment = content[at : at + size]
        last = at + size >= len(content)
        flags = control if last else control & 1
        parts.append(struct.pack(">BxLLBB", 4, len(fragment) + 6, len(fragment) + 2, _CONTEXT_ID, flags))
        parts.append(fragment)
    return b"".join(parts)
