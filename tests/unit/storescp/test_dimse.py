"""Command sets: ours against pynetdicom's, and damaged ones."""

from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import P_DATA_TF

from storescp import dimse
from storescp.dimse import ProtocolViolation, Request

DX = "1.2.840.10008.5.1.4.1.1.1.1"
REQUEST = Request(dimse.C_STORE_RQ, 7, DX, "1.2.3.4", has_data_set=True)


def encoded(message: C_STORE_RQ | C_ECHO_RQ, primitive: C_STORE | C_ECHO) -> bytes:
    """The command set as pynetdicom writes it."""
    message.primitive_to_message(primitive)
    first = next(iter(message.encode_msg(1, 16384)))
    [[_, data]] = first.presentation_data_value_list
    return bytes(data[1:])


def test_store_request_of_another_implementation_is_read() -> None:
    primitive = C_STORE()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = DX
    primitive.AffectedSOPInstanceUID = "1.2.3.4"
    primitive.Priority = 2
    primitive.MoveOriginatorApplicationEntityTitle = "PACS"
    primitive.MoveOriginatorMessageID = 3
    primitive.DataSet = BytesIO(b"data")
    assert dimse.decode(encoded(C_STORE_RQ(), primitive)) == REQUEST


def test_echo_request_of_another_implementation_is_read() -> None:
    primitive = C_ECHO()
    primitive.MessageID = 65535
    primitive.AffectedSOPClassUID = "1.2.840.10008.1.1"
    expected = Request(dimse.C_ECHO_RQ, 65535, "1.2.840.10008.1.1", "", has_data_set=False)
    assert dimse.decode(encoded(C_ECHO_RQ(), primitive)) == expected


def test_answer_is_read_by_another_implementation() -> None:
    pdu = P_DATA_TF()
    pdu.decode(dimse.response(REQUEST, 3, 0xA700, "free disk space is below the low-water mark " * 2))
    message = DIMSEMessage()
    assert message.decode_msg(pdu.to_primitive())
    answer = message.message_to_primitive()
    assert isinstance(answer, C_STORE)
    assert (message.context_id, answer.MessageIDBeingRespondedTo, answer.Status) == (3, 7, 0xA700)
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (DX, "1.2.3.4")
    assert answer.ErrorComment is not None
    assert len(answer.ErrorComment) == dimse.COMMENT_LENGTH


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_violate_the_protocol(command_set: bytes) -> None:
    with suppress(ProtocolViolation):
        dimse.decode(command_set)


@given(st.integers(0, 120))
def test_cut_command_set_is_a_violation(length: int) -> None:
    primitive = C_ECHO()
    primitive.MessageID = 1
    primitive.AffectedSOPClassUID = "1.2.840.10008.1.1"
    whole = encoded(C_ECHO_RQ(), primitive)
    with pytest.raises(ProtocolViolation):
        dimse.decode(whole[: min(length, len(whole) - 1)])


@given(st.text(max_size=70), st.text(max_size=70))
def test_whatever_was_asked_can_be_answered(instance: str, comment: str) -> None:
    request = Request(dimse.C_STORE_RQ, 1, DX, instance, has_data_set=True)
    pdu = P_DATA_TF()
    pdu.decode(dimse.response(request, 1, 0x0117, comment))
    assert pdu.to_primitive().presentation_data_value_list
