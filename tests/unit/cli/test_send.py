"""Addresses and titles are checked before anything is sent."""

import pytest

from clearfilm.dicom.scu import Peer
from clearfilm.errors import UsageError
from cli.send import parse_peer, send_files


def test_peer_is_read_from_its_address() -> None:
    assert parse_peer("PACS@127.0.0.1:104") == Peer("PACS", "127.0.0.1", 104)
    assert parse_peer("PACS@[::1]:104") == Peer("PACS", "::1", 104)


@pytest.mark.parametrize(
    "text",
    [
        "X",
        "@host:1",
        "X@host",
        "X@host:0",
        "X@host:65536",
        "X@host:\u0661",
        "   @host:1",
        "ÄÖ@host:1",
        "X@a..b:1",
        f"{'X' * 17}@host:1",
    ],
)
def test_what_is_no_address_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        parse_peer(text)


@pytest.mark.parametrize("title", ["TOO_LONG_AE_TITLE_XXXX", "ÄÖ", "", "A\\\\B"])
def test_what_is_no_title_is_wrong_usage(title: str) -> None:
    with pytest.raises(UsageError, match="AE title"):
        send_files([], "PACS@127.0.0.1:104", title)
