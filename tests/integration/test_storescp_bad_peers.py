"""Peers that are silent, slow, endless or hostile: each is ended in time, and nobody else suffers."""

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from clearfilm.config import Config, Sender
from storescp.hardening import MAXIMUM_PDU
from storescp.main import RunningListener
from tests.integration.listening import PATIENT, SHORT, configuration, film, listening, stored_files
from tests.integration.raw_peer import (
    ABORT,
    AC,
    COMMAND_LAST,
    COMMAND_MORE,
    DATA_LAST,
    DATA_MORE,
    DX,
    P_DATA,
    RQ,
    Answer,
    RawPeer,
    associate_rq,
    echo_command,
    fragment,
    pdu,
    store_command,
)

SUCCESS = Answer(0x0000, "")
NEIGHBOUR = Sender(name="room 2", ae_title="NEIGHBOUR", addresses=("127.0.0.2",))
STORE = fragment(3, COMMAND_LAST, store_command(DX, "1.2.3.4"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = configuration(tmp_path, listener=SHORT)
    return config.model_copy(update={"senders": (*config.senders, NEIGHBOUR)})


@pytest.fixture
def listener(config: Config) -> Iterator[RunningListener]:
    with listening(config) as running:
        yield running


@pytest.fixture
def patient(config: Config) -> Iterator[RunningListener]:
    """One that ends nobody for being silent while a test runs."""
    with listening(config.model_copy(update={"listener": PATIENT})) as running:
        yield running


def neighbour_is_served(port: int) -> None:
    """A permitted peer at another address gets its echo."""
    with RawPeer(port, source="127.0.0.2") as peer:
        assert peer.accepted(calling="NEIGHBOUR").echo() == SUCCESS


@pytest.mark.parametrize("sent", [0, 3, 6, 100], ids=["silent", "half a header", "header only", "half a request"])
def test_connection_without_a_request_holds_nobody_up(patient: RunningListener, sent: int) -> None:
    with RawPeer(patient.port) as peer:
        peer.send(associate_rq()[:sent])
        neighbour_is_served(patient.port)
        peer.send(associate_rq()[sent:])
        answer = peer.receive()
    assert answer is not None, "it was ended before the neighbour was served"
    assert answer[0] == AC


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        associate_rq()[:3],
        associate_rq()[:6],
        associate_rq()[:100],
    ],
    ids=["silent", "half a header", "header only", "half a request"],
)
def test_connection_without_a_request_is_closed_in_time(listener: RunningListener, opening: bytes) -> None:
    with RawPeer(listener.port, timeout=3.0) as peer:
        peer.send(opening)
        neighbour_is_served(listener.port)
        assert peer.closed()


def test_dripped_request_is_closed_in_time(listener: RunningListener) -> None:
    drips_until_closed(listener, associate_rq(), associated=False)


def test_dripped_data_set_is_closed_in_time(config: Config, listener: RunningListener) -> None:
    drips_until_closed(listener, fragment(3, DATA_MORE, bytes(5000)), associated=True)
    no_film_is_left(config)


def drips_until_closed(listener: RunningListener, content: bytes, *, associated: bool) -> None:
    with RawPeer(listener.port, timeout=3.0) as peer:
        if associated:
            peer.accepted()
            peer.send(STORE)
        closed = threading.Event()
        watcher = threading.Thread(target=lambda: peer.closed() and closed.set())
        watcher.start()
        for at in range(len(content) - 1):
            if closed.wait(0.02):
                break
            try:
                peer.send(content[at : at + 1])
            except OSError:
                break
        else:
            pytest.fail("it listened to the end")
        watcher.join()
        assert closed.is_set()


@pytest.mark.parametrize(
    "content",
    [
        STORE,
        STORE + fragment(3, DATA_MORE, bytes(100)),
        STORE + fragment(3, DATA_MORE, bytes(100))[:50],
        fragment(3, COMMAND_MORE, store_command(DX, "1.2")[:20]),
        b"",
    ],
    ids=["no data", "no last fragment", "half a fragment", "half a command", "nothing"],
)
def test_association_that_falls_silent_is_ended_in_time(
    config: Config, listener: RunningListener, content: bytes
) -> None:
    with RawPeer(listener.port, timeout=3.0) as peer:
        peer.accepted()
        peer.send(content)
        assert peer.closed()
    no_film_is_left(config)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack(">BxL", P_DATA, 0xFFFFFFFF),
        struct.pack(">BxL", P_DATA, MAXIMUM_PDU + 1),
        struct.pack(">BxL", RQ, 1 << 30),
        struct.pack(">BxL", 0x77, 4) + bytes(4),
        pdu(P_DATA, b""),
        pdu(P_DATA, struct.pack(">LBB", 1000, 3, DATA_LAST)),
        pdu(P_DATA, struct.pack(">LB", 1, 3)),
        pdu(P_DATA, b"\0\0"),
        pdu(2, bytes(8)),
        fragment(3, DATA_LAST, film()),
        fragment(9, COMMAND_LAST, store_command(DX, "1.2.3.4")),
        fragment(3, COMMAND_LAST, b"\xff" * 50),
        fragment(3, COMMAND_LAST, store_command(DX, "1.2.3.4")[:-3]),
        fragment(3, COMMAND_LAST, b""),
        fragment(1, COMMAND_LAST, echo_command().replace(struct.pack("<H", 0x30), struct.pack("<H", 0x20), 1)),
        STORE + fragment(1, DATA_LAST, film()),
        STORE + STORE,
        associate_rq(),
    ],
    ids=[
        "4 GiB",
        "one byte too long",
        "1 GiB request",
        "unknown type",
        "empty P-DATA",
        "fragment longer than its PDU",
        "fragment without a header",
        "cut header",
        "acceptance from a requestor",
        "data without a command",
        "context that was not accepted",
        "garbage command",
        "cut command",
        "empty command",
        "C-FIND",
        "data on another context",
        "command instead of data",
        "second request",
    ],
)
def test_violation_is_aborted_at_once(config: Config, patient: RunningListener, content: bytes) -> None:
    with RawPeer(patient.port, timeout=5.0) as peer:
        peer.accepted()
        peer.send(content)
        answer = peer.receive()
        assert answer is None or answer[0] == ABORT
        assert peer.closed()
    neighbour_is_served(patient.port)
    no_film_is_left(config)


def no_film_is_left(config: Config) -> None:
    deadline = time.monotonic() + 5.0
    while stored_files(config):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def send_for_ever(peer: RawPeer, part: bytes, most: int) -> int:
    sent = 0
    try:
        while sent < most:
            peer.send(part)
            sent += len(part)
    except OSError:
        pass
    return sent


def test_endless_data_set_is_cut_and_costs_no_memory(config: Config, listener: RunningListener) -> None:
    before = psutil.Process().memory_info().rss
    with RawPeer(listener.port) as peer:
        peer.accepted()
        peer.send(STORE)
        sent = send_for_ever(peer, fragment(3, DATA_MORE, bytes(100_000)), 64_000_000)
    assert sent < 32_000_000, "4 MB are allowed, the rest is in the buffers of the sockets"
    assert psutil.Process().memory_info().rss - before < 20_000_000
    no_film_is_left(config)


def test_endless_command_set_is_cut(listener: RunningListener) -> None:
    with RawPeer(listener.port) as peer:
        peer.accepted()
        assert send_for_ever(peer, fragment(3, COMMAND_MORE, bytes(10_000)), 64_000_000) < 32_000_000


def test_sender_that_does_not_wait_for_answers_gets_them_all(config: Config, listener: RunningListener) -> None:
    with RawPeer(listener.port) as peer:
        peer.accepted()
        for number in range(5):
            instance = f"1.2.{number}"
            peer.send(fragment(3, COMMAND_LAST, store_command(DX, instance)))
            peer.send(fragment(3, DATA_LAST, film(instance)))
        assert [peer.answer() for _ in range(5)] == [SUCCESS] * 5
    assert len(stored_files(config)) == 5


@pytest.mark.parametrize("ending", [pdu(ABORT, bytes(4)), None, pdu(5, bytes(4))], ids=["abort", "cut", "release"])
def test_broken_transfer_leaves_nothing(config: Config, listener: RunningListener, ending: bytes | None) -> None:
    with RawPeer(listener.port) as peer:
        peer.accepted()
        peer.send(STORE + fragment(3, DATA_MORE, bytes(90_000)))
        if ending:
            peer.send(ending)
    no_film_is_left(config)


def test_port_probes_take_no_places(listener: RunningListener) -> None:
    for _ in range(40):
        RawPeer(listener.port).__enter__().socket.close()
    neighbour_is_served(listener.port)
    with RawPeer(listener.port) as peer:
        assert peer.accepted().echo() == SUCCESS


@pytest.mark.parametrize("opening", [b"", associate_rq()], ids=["silent", "associated"])
def test_flood_from_one_address_leaves_room_for_others(listener: RunningListener, opening: bytes) -> None:
    peers = [RawPeer(listener.port, timeout=3.0) for _ in range(12)]
    for peer in peers:
        try_to_send(peer, opening)
    neighbour_is_served(listener.port)
    for peer in peers:
        assert peer.closed()
        peer.socket.close()
    settle(lambda: is_served_again(listener.port))


def is_served_again(port: int) -> bool:
    with RawPeer(port) as peer:
        return peer.associate() is not None and peer.echo() == SUCCESS


def try_to_send(peer: RawPeer, data: bytes) -> None:
    with suppress(OSError):
        peer.send(data)


def test_churn_of_associations_leaves_no_threads_or_descriptors(listener: RunningListener) -> None:
    process = psutil.Process()
    idle = threading.active_count()

    def churn(times: int) -> None:
        for number in range(times):
            # On a busy machine connections end later than this loop makes new ones: stay below the limit.
            settle(lambda: listener.associations < SHORT.maximum_connections_per_address)
            with RawPeer(listener.port) as peer:
                peer.accepted()
                if number % 2:
                    peer.release()

    churn(4)
    settle(lambda: threading.active_count() <= idle)
    threads, descriptors = threading.active_count(), process.num_fds()
    churn(60)
    # Associations that overlap open a few database connections more, which stay: far fewer than one for each.
    settle(lambda: threading.active_count() < threads + 20 and process.num_fds() < descriptors + 20)


def settle(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline, "did not settle"
        time.sleep(0.01)


def test_clock_steps_do_not_end_associations(listener: RunningListener, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawPeer(listener.port) as peer:
        peer.accepted()
        monkeypatch.setattr("pynetdicom.timer.time.time", lambda: 4e9)
        assert peer.echo() == SUCCESS
        monkeypatch.undo()
        assert peer.echo() == SUCCESS
