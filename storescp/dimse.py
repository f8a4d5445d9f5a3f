"""Command sets of the services that the listener offers (PS3.7 6.3.1, 9.3.1, 9.3.5, 10.3.1).

A C-STORE request and its answer are a dozen numbers and UIDs. General machinery for them costs more than
the rest of a film, and takes commands that nobody here answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct, error
from typing import Final

from clearfilm.errors import ClearfilmError

COMMENT_LENGTH: Final = 64
"""Error Comment (0000,0902) is an LO."""
C_STORE_RQ: Final = 0x0001
C_ECHO_RQ: Final = 0x0030
N_EVENT_REPORT_RQ: Final = 0x0100
_RESPONSE = 0x8000
_NO_DATA_SET = 0x0101

_GROUP_LENGTH = 0x0000
_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_RESPONDED_TO = 0x0120
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000

_ELEMENT = Struct("<HHI")
_NUMBER = Struct("<H")
_PDU = Struct(">BxLLBB")
_P_DATA_TF = 0x04
_LAST_COMMAND_FRAGMENT = 0x03


class ProtocolViolation(ClearfilmError):
    """The peer did what no peer may do; its association is aborted."""


@dataclass(frozen=True)
class Request:
    """A C-ECHO, C-STORE or N-EVENT-REPORT request.

    Parameters
    ----------
    command : int
        Command Field (0000,0100).
    message_id : int
    sop_class_uid, sop_instance_uid : str
        As received, without padding; not checked.
    has_data_set : bool
    """

    command: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool


def decode(command_set: bytes | bytearray) -> Request:
    """Read a request.

    Parameters
    ----------
    command_set : bytes
        Implicit VR little endian (PS3.7 6.3.1).

    Raises
    ------
    ProtocolViolation
        If it is damaged or lacks a mandatory element.
    """
    elements: dict[int, bytes] = {}
    offset = 0
    while offset < len(command_set):
        if offset + _ELEMENT.size > len(command_set):
            raise ProtocolViolation("a command set is cut short")
        group, element, length = _ELEMENT.unpack_from(command_set, offset)
        offset += _ELEMENT.size
        if group != 0 or offset + length > len(command_set):
            raise ProtocolViolation("a command set cannot be decoded")
        elements[element] = bytes(command_set[offset : offset + length])
        offset += length
    return Request(
        command=_number(elements, _COMMAND_FIELD),
        message_id=_number(elements, _MESSAGE_ID),
        sop_class_uid=_uid(elements, _AFFECTED_SOP_CLASS_UID),
        sop_instance_uid=_uid(elements, _AFFECTED_SOP_INSTANCE_UID),
        has_data_set=_number(elements, _DATA_SET_TYPE) != _NO_DATA_SET,
    )


def response(request: Request, context_id: int, status: int, comment: str = "") -> bytes:
    """Encode the answer as one P-DATA-TF PDU (PS3.8 9.3.5).

    Parameters
    ----------
    request : Request
    context_id : int
        Presentation context of the request.
    status : int
        PS3.4 B.2.3.
    comment : str
        Plain ASCII reason of a failure; cut after 64 characters.
    """
    values = {_AFFECTED_SOP_CLASS_UID: _padded(request.sop_class_uid, b"\0")}
    values[_COMMAND_FIELD] = _NUMBER.pack(request.command | _RESPONSE)
    values[_MESSAGE_ID_RESPONDED_TO] = _NUMBER.pack(request.message_id)
    values[_DATA_SET_TYPE] = _NUMBER.pack(_NO_DATA_SET)
    values[_STATUS] = _NUMBER.pack(status)
    if comment:
        values[_ERROR_COMMENT] = _padded(comment[:COMMENT_LENGTH], b" ")
    if request.sop_instance_uid:
        values[_AFFECTED_SOP_INSTANCE_UID] = _padded(request.sop_instance_uid, b"\0")
    elements = b"".join(_ELEMENT.pack(0, tag, len(value)) + value for tag, value in values.items())
    command_set = _ELEMENT.pack(0, _GROUP_LENGTH, 4) + len(elements).to_bytes(4, "little") + elements
    size = len(command_set)
    return _PDU.pack(_P_DATA_TF, size + 6, size + 2, context_id, _LAST_COMMAND_FRAGMENT) + command_set


def _number(elements: Mapping[int, bytes], tag: int) -> int:
    try:
        (value,) = _NUMBER.unpack(elements.get(tag, b""))
    except error as cause:
        raise ProtocolViolation(f"a command set lacks element (0000,{tag:04X})") from cause
    return int(value)


def _uid(elements: Mapping[int, bytes], tag: int) -> str:
    return elements.get(tag, b"").rstrip(b"\0 ").decode("ascii", "replace")


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)
