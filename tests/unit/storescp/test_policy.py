"""Who is let in, and how denials are reported."""

import pytest

from clearfilm.config import Config, Destination, Listener, Node, Sender
from storescp.policy import CALLED_TITLE_UNKNOWN, CALLING_TITLE_UNKNOWN, Admission, Denials, Policy, supported_contexts

ROOM = Sender(name="room", ae_title="ROOM1", addresses=("10.0.0.7",))
WARD = Sender(name="ward", ae_title="*", addresses=("10.0.0.0/24", "fd00::/64"), secondary_capture=True)


def policy(*senders: Sender, echo_from_anyone: bool = False) -> Policy:
    return Policy(
        Config(
            node=Node(ae_title="NODE"),
            senders=senders,
            listener=Listener(echo_from_anyone=echo_from_anyone),
        )
    )


@pytest.mark.parametrize(
    ("title", "address", "sender"),
    [
        ("ROOM1", "10.0.0.7", ROOM),
        ("ROOM1", "10.0.0.8", WARD),
        ("ROOM1", "::ffff:10.0.0.7", ROOM),
        ("room1", "10.0.0.7", WARD),
        ("ANY", "fd00::1", WARD),
        ("ANY", "fe80::1%eth0", None),
        ("ROOM1", "10.0.1.7", None),
    ],
)
def test_sender_is_known_by_title_and_address(title: str, address: str, sender: Sender | None) -> None:
    assert policy(WARD, ROOM).sender(title, address) == sender


def test_nobody_is_known_by_default() -> None:
    assert policy().decide("NODE", "ROOM1", "127.0.0.1") == CALLING_TITLE_UNKNOWN


def test_destination_may_report_from_its_own_address_only() -> None:
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
    rules = Policy(Config(node=Node(ae_title="NODE"), destinations=(pacs,)))
    assert rules.decide("NODE", "PACS", "127.0.0.1") == Admission(destination=pacs)
    assert rules.decide("NODE", "PACS", "127.0.0.2") == CALLING_TITLE_UNKNOWN
    assert [context.abstract_syntax for context in supported_contexts(Admission(destination=pacs))] == [
        "1.2.840.10008.1.1",
        "1.2.840.10008.1.20.1",
    ]


def test_called_title_must_be_ours_also_for_known_senders() -> None:
    assert policy(ROOM).decide("OTHER", "ROOM1", "10.0.0.7") == CALLED_TITLE_UNKNOWN


def test_stranger_gets_echo_only_where_configured() -> None:
    assert policy(ROOM, echo_from_anyone=True).decide("NODE", "NOBODY", "10.9.9.9") == Admission()
    assert [context.abstract_syntax for context in supported_contexts(Admission())] == ["1.2.840.10008.1.1"]


def test_denials_are_reported_once_a_minute_for_an_address() -> None:
    reports: list[tuple[str, str, str, int]] = []
    now = 0.0
    denials = Denials(lambda *facts: reports.append(facts), clock=lambda: now)
    for _ in range(5):
        denials.add("X", "10.0.0.1", "why")
    denials.add("X", "10.0.0.2", "why")
    now = 61.0
    denials.add("Y", "10.0.0.1", "why")
    assert reports == [("X", "10.0.0.1", "why", 0), ("X", "10.0.0.2", "why", 0), ("Y", "10.0.0.1", "why", 4)]


def test_memory_for_denials_is_bounded() -> None:
    denials = Denials(lambda *_facts: None)
    for number in range(5000):
        denials.add("X", f"10.0.{number // 256}.{number % 256}", "why")
    assert len(denials._seen) <= 1024
