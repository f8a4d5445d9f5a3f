"""The listener on real sockets: what it takes, what it refuses, and what stays behind."""

import fcntl
import os
import shutil
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import select

from clearfilm.config import Config, Disk, Node, Sender
from clearfilm.errors import StartupError
from db import audit
from db.models import Audit, Decision, Instance, InstanceState, Job, JobKind, Result, ResultKind, Study
from db.session import Database
from storescp.main import RunningListener
from tests.integration import raw_peer
from tests.integration.listening import configuration, film, listening, stored_files
from tests.integration.raw_peer import AC, DX, RJ, SC, VERIFICATION, Answer, RawPeer

SUCCESS = Answer(0x0000, "")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
STORAGE = ((1, VERIFICATION), (3, DX))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configuration(tmp_path)


@pytest.fixture
def listener(config: Config) -> Iterator[RunningListener]:
    with listening(config) as running:
        yield running


def rows(config: Config, statement: Any) -> list[Any]:
    database = Database(config.database_url)
    with database.read() as session:
        found = list(session.scalars(statement))
    database.close()
    return found


def store(port: int, data: bytes, *, instance: str = "1.2.3.4", **how: Any) -> Answer:
    with RawPeer(port) as peer:
        answer = peer.accepted(contexts=STORAGE).store(data, instance=instance, **how)
        peer.release()
        return answer


def test_echo_is_answered(listener: RunningListener) -> None:
    with RawPeer(listener.port) as peer:
        assert peer.accepted().echo() == SUCCESS
        peer.release()
        assert peer.closed()


def test_film_is_stored_as_received_under_a_name_of_our_own(config: Config, listener: RunningListener) -> None:
    data = film("1.2.3.4", size=700)
    assert store(listener.port, data) == SUCCESS

    [instance] = rows(config, select(Instance))
    [path] = stored_files(config)
    content = path.read_bytes()
    assert content.endswith(data)
    assert content.startswith(bytes(128) + b"DICM")
    assert path == config.data_folder / instance.path
    assert "1.2.3.4" not in instance.path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (instance.digest, instance.size) == (sha256(data).hexdigest(), len(data))
    meta = dcmread(path).file_meta
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert meta.SourceApplicationEntityTitle == "MODALITY"
    assert meta.TransferSyntaxUID == raw_peer.EXPLICIT


def test_stored_film_has_its_study_and_jobs(config: Config, listener: RunningListener) -> None:
    store(listener.port, film(RequestedProcedurePriority="STAT"))

    [study] = rows(config, select(Study))
    assert (study.patient_name, study.patient_id, study.ordered_priority) == ("Doe^Jane", "4711", "STAT")
    assert {job.kind for job in rows(config, select(Job))} == {JobKind.ANALYSE, JobKind.CONCLUDE}


def test_films_of_several_associations_are_all_recorded(config: Config, listener: RunningListener) -> None:
    answers: list[Answer] = []

    def send(number: int) -> None:
        instance = f"1.2.3.{number}"
        answers.append(store(listener.port, film(instance), instance=instance))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [SUCCESS] * 6
    assert len(rows(config, select(Instance))) == len(stored_files(config)) == 6


def test_equal_bytes_again_are_acknowledged_and_leave_nothing(config: Config, listener: RunningListener) -> None:
    assert store(listener.port, film()) == store(listener.port, film()) == SUCCESS
    assert len(rows(config, select(Instance))) == len(stored_files(config)) == 1


def test_other_bytes_under_the_same_uid_are_kept_beside_and_marked(config: Config, listener: RunningListener) -> None:
    assert store(listener.port, film()) == store(listener.port, film(PatientID="4712")) == SUCCESS

    assert [instance.conflict for instance in rows(config, select(Instance))] == [True, True]
    assert len(stored_files(config)) == 2
    assert [entry.event for entry in rows(config, select(Audit))] == ["film received again with other bytes"]


def test_lost_file_is_replaced_when_its_sender_sends_it_again(config: Config, listener: RunningListener) -> None:
    data = film()
    store(listener.port, data)
    [path] = stored_files(config)
    path.unlink()
    assert store(listener.port, data) == SUCCESS
    assert path.read_bytes().endswith(data)


def test_own_result_routed_back_is_acknowledged_and_not_stored(config: Config, listener: RunningListener) -> None:
    database = Database(config.database_url)
    with database.begin() as session:
        study = Study(study_instance_uid="1.2.3", first_received_at=NOW, last_received_at=NOW)
        session.add(study)
        session.flush()
        session.add(
            Result(
                study_id=study.id,
                revision=1,
                kind=ResultKind.SECONDARY_CAPTURE,
                sop_class_uid=SC,
                sop_instance_uid="2.25.99",
                series_instance_uid="2.25.98",
                transfer_syntax_uid=raw_peer.EXPLICIT,
                position=1,
                path="results/x.dcm",
                digest="0" * 64,
                decision=Decision.NOT_ANALYSED,
                created_at=NOW,
            )
        )
    database.close()
    with RawPeer(listener.port) as peer:
        peer.accepted(calling="SCANNER", contexts=[(3, SC)])
        assert peer.store(film("2.25.99", SOPClassUID=SC), instance="2.25.99", sop_class=SC) == SUCCESS
    assert stored_files(config) == []


def test_result_of_another_node_is_acknowledged_and_not_stored(config: Config, listener: RunningListener) -> None:
    words = Decision.NOT_ANALYSED.series_description
    with RawPeer(listener.port) as peer:
        peer.accepted(calling="SCANNER", contexts=[(3, SC)])
        result = film("2.25.77", SOPClassUID=SC, SeriesDescription=words)
        assert peer.store(result, instance="2.25.77", sop_class=SC) == SUCCESS
        assert stored_files(config) == []
        capture = film("2.25.78", SOPClassUID=SC, SeriesDescription="Thorax PA")
        assert peer.store(capture, instance="2.25.78", sop_class=SC) == SUCCESS
    assert len(stored_files(config)) == 1


@pytest.mark.parametrize(
    ("how", "result"),
    [
        ({"calling": "NOBODY"}, b"\x01\x01\x03"),
        ({"called": "OTHER"}, b"\x01\x01\x07"),
        ({"calling": "modality"}, b"\x01\x01\x03"),
    ],
)
def test_unknown_titles_are_rejected_and_audited(
    config: Config, listener: RunningListener, how: dict[str, str], result: bytes
) -> None:
    for _ in range(2):
        with RawPeer(listener.port) as peer:
            assert peer.associate(**how) == (RJ, b"\0" + result)
    [entry] = rows(config, select(Audit))
    assert entry.event == "association denied"
    assert "127.0.0.1" in entry.actor


def test_known_title_from_an_unknown_address_is_rejected(listener: RunningListener) -> None:
    with RawPeer(listener.port, source="127.0.0.2") as peer:
        assert peer.associate() == (RJ, b"\0\x01\x01\x03")


def test_star_takes_any_title_from_its_networks(tmp_path: Path) -> None:
    anyone = Sender(name="ward", ae_title="*", addresses=("127.0.0.0/30",))
    with listening(configuration(tmp_path, senders=(anyone,))) as listener:
        with RawPeer(listener.port, source="127.0.0.2") as peer:
            assert peer.accepted(calling="WHATEVER").echo() == SUCCESS
        with RawPeer(listener.port, source="127.0.0.9") as peer:
            assert peer.associate(calling="WHATEVER") == (RJ, b"\0\x01\x01\x03")


def test_stranger_may_echo_but_not_store_where_that_is_configured(tmp_path: Path) -> None:
    settings = configuration(tmp_path).listener.model_copy(update={"echo_from_anyone": True})
    with (
        listening(configuration(tmp_path, listener=settings)) as listener,
        RawPeer(listener.port) as peer,
    ):
        answer = peer.associate(calling="NOBODY")
        assert answer is not None
        assert accepted_contexts(answer) == [1]
        assert peer.echo() == SUCCESS


def accepted_contexts(answer: tuple[int, bytes]) -> list[int]:
    """Numbers of the accepted presentation contexts of an A-ASSOCIATE-AC (PS3.8 9.3.3)."""
    assert answer[0] == AC
    accepted, at, body = [], 68, answer[1]
    while at < len(body):
        length = int.from_bytes(body[at + 2 : at + 4], "big")
        if body[at] == 0x21 and body[at + 6] == 0:
            accepted.append(body[at + 4])
        at += 4 + length
    return accepted


@pytest.mark.parametrize(("calling", "accepted"), [("MODALITY", [1]), ("SCANNER", [1, 3])])
def test_secondary_capture_is_negotiated_only_with_configured_senders(
    listener: RunningListener, calling: str, accepted: list[int]
) -> None:
    with RawPeer(listener.port) as peer:
        answer = peer.associate(calling=calling, contexts=[(1, VERIFICATION), (3, SC)])
        assert answer is not None
        assert accepted_contexts(answer) == accepted


@pytest.mark.parametrize(
    ("data", "how", "status"),
    [
        (film("1.2.3.4"), {"instance": "1.2.3.5"}, 0xA900),
        (film("1.2.3.4", SOPClassUID=raw_peer.CR), {"instance": "1.2.3.4"}, 0xA900),
        (film("1.2.3.4"), {"instance": "1.2.3.4", "sop_class": raw_peer.CR}, 0x0122),
        (film("1.2.3.4"), {"instance": "1.2.3.4", "context_id": 1}, 0x0122),
        (film("1.2.3.4"), {"instance": "../../../etc/passwd"}, 0x0117),
        (film("1.2.3.4"), {"instance": "1.2.3.4\n"}, 0x0117),
        (film("1.2.3.4"), {"instance": ""}, 0x0117),
        (film("1.2.3.4"), {"instance": "1." * 40 + "1"}, 0x0117),
        (film("1.2.3.4"), {"instance": "\xff\xfe"}, 0x0117),
        (film("1.2.3.4")[:-1000], {"instance": "1.2.3.4"}, 0xC000),
        (os.urandom(1000), {"instance": "1.2.3.4"}, 0xC000),
        (b"", {"instance": "1.2.3.4"}, 0xC000),
    ],
)
def test_bad_objects_are_refused_with_a_reason_and_leave_nothing(
    config: Config, listener: RunningListener, data: bytes, how: dict[str, Any], status: int
) -> None:
    with RawPeer(listener.port) as peer:
        peer.accepted()
        answer = peer.store(data, **how) if data else _store_nothing(peer, how["instance"])
        assert answer.status == status
        assert 0 < len(answer.comment) <= 64
        assert peer.echo() == SUCCESS, "the association goes on"
    assert stored_files(config) == []
    assert rows(config, select(Instance)) == []


def _store_nothing(peer: RawPeer, instance: str) -> Answer:
    peer.send(raw_peer.fragment(3, raw_peer.COMMAND_LAST, raw_peer.store_command(DX, instance)))
    peer.send(raw_peer.fragment(3, raw_peer.DATA_LAST, b""))
    return peer.answer()


def test_low_disk_refuses_films_and_recovers_without_restart(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    config = configuration(tmp_path, disk=Disk(low_water_percent=0, low_water_gigabytes=(free - 3e9) / 1e9))
    ballast = tmp_path / "ballast"
    with listening(config) as listener:
        assert store(listener.port, film("1.1"), instance="1.1") == SUCCESS
        with ballast.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, 6_000_000_000)
        wait_until(lambda: store(listener.port, film("1.2"), instance="1.2").status == 0xA700)
        ballast.unlink()
        wait_until(lambda: store(listener.port, film("1.3"), instance="1.3") == SUCCESS)
        assert not [path for path in stored_files(config) if path.suffix != ".dcm"]


def test_impossible_mark_refuses_every_film_but_not_the_association(tmp_path: Path) -> None:
    config = configuration(tmp_path, disk=Disk(low_water_gigabytes=1_000_000))
    with listening(config) as listener, RawPeer(listener.port) as peer:
        answer = peer.accepted().store(film(), instance="1.2.3.4")
        assert answer == Answer(0xA700, "free disk space is below the low-water mark")
        assert peer.echo() == SUCCESS


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        # Asked without a pause, the listener has more connections of one address on their way out than it allows.
        threading.Event().wait(0.05)


def test_locked_database_refuses_the_film_and_recovers(config: Config) -> None:
    with listening(config, busy_timeout_seconds=0.2) as listener:
        store(listener.port, film("1.1"), instance="1.1")
        lock = sqlite3.connect(config.data_folder / "clearfilm.sqlite", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        assert store(listener.port, film("1.2"), instance="1.2") == Answer(0xA700, "the database is locked or away")
        assert len(stored_files(config)) == 1
        lock.execute("ROLLBACK")
        lock.close()
        assert store(listener.port, film("1.2"), instance="1.2") == SUCCESS


def test_unwritable_folder_refuses_the_film(config: Config, listener: RunningListener) -> None:
    films = config.data_folder / "films"
    shutil.rmtree(films)
    films.write_text("in the way", encoding="ascii")
    answer = store(listener.port, film())
    assert answer.status == 0xA700
    films.unlink()
    assert store(listener.port, film()) == SUCCESS


def test_port_of_another_program_is_one_sentence(config: Config, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StartupError, match=f"127.0.0.1:{port} is in use by another program"):
            RunningListener(configuration(tmp_path, node=Node(port=port)))


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_port_of_another_node_is_one_sentence(config: Config, tmp_path: Path, address: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with listening(config) as first:
        second = configuration(other, node=Node(address=address, port=first.port))
        words = f"{address}:{first.port} is in use by another Clearfilm node .data folder /"
        with pytest.raises(StartupError, match=words):
            RunningListener(second)
    with listening(second) as alone:
        assert store(alone.port, film()) == SUCCESS


def test_two_listeners_share_a_port(config: Config, tmp_path: Path) -> None:
    with listening(config) as first:
        second = configuration(tmp_path, node=Node(port=first.port))
        with listening(second):
            for number in range(8):
                assert store(first.port, film(f"1.2.{number}"), instance=f"1.2.{number}") == SUCCESS
    assert len(rows(config, select(Instance))) == 8


def test_unfinished_files_are_removed_at_start_unless_in_use(config: Config) -> None:
    folder = config.data_folder / "films" / "ab"
    folder.mkdir(parents=True)
    (folder / "left.dcm.part").write_bytes(b"half a film")
    (folder / "busy.dcm.part").write_bytes(b"half a film")
    with (folder / "busy.dcm.part").open("rb") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        with listening(config):
            wait_until(lambda: [path.name for path in stored_files(config)] == ["busy.dcm.part"])


def test_film_without_a_row_is_recorded_at_start(config: Config) -> None:
    data = film()
    with listening(config) as listener:
        store(listener.port, data)
    database = Database(config.database_url)
    with database.begin() as session:
        for table in (Job, Instance, Study):
            session.execute(table.__table__.delete())
    database.close()
    with listening(config):
        wait_until(lambda: len(rows(config, select(Instance))) == 1)
    [instance] = rows(config, select(Instance))
    assert instance.digest == sha256(data).hexdigest()
    assert (instance.sop_instance_uid, instance.calling_ae_title) == ("1.2.3.4", "MODALITY")
    assert {job.kind for job in rows(config, select(Job))} == {JobKind.ANALYSE, JobKind.CONCLUDE}


def test_row_without_a_file_fails_visibly_at_start(config: Config) -> None:
    with listening(config) as listener:
        store(listener.port, film())
    [path] = stored_files(config)
    path.unlink()
    with listening(config):
        wait_until(lambda: rows(config, select(Instance))[0].state == InstanceState.FAILED)
    [instance] = rows(config, select(Instance))
    assert instance.reason == "the stored file is missing"
    database = Database(config.database_url)
    with database.read() as session:
        assert audit.first_broken(session) is None
    database.close()


@pytest.mark.parametrize("file_is_back", [False, True])
def test_lost_film_is_analysed_when_its_sender_sends_it_again(config: Config, file_is_back: bool) -> None:
    data = film()
    with listening(config) as listener:
        store(listener.port, data)
    [path] = stored_files(config)
    content = path.read_bytes()
    path.unlink()
    with listening(config) as listener:
        wait_until(lambda: rows(config, select(Instance))[0].state == InstanceState.FAILED)
        if file_is_back:  # as after a crash between the file and its rows
            path.write_bytes(content)
        assert store(listener.port, data) == SUCCESS
    assert path.read_bytes() == content
    [instance] = rows(config, select(Instance))
    assert (instance.state, instance.reason) == (InstanceState.QUEUED, None)
    assert sorted(job.kind for job in rows(config, select(Job))) == [JobKind.ANALYSE, JobKind.CONCLUDE]


def test_stop_lets_a_running_message_end(config: Config) -> None:
    with listening(config) as listener, RawPeer(listener.port) as peer:
        peer.accepted()
        data = film("1.2.3.4")
        peer.send(raw_peer.fragment(3, raw_peer.COMMAND_LAST, raw_peer.store_command(DX, "1.2.3.4")))
        peer.send(raw_peer.fragment(3, raw_peer.DATA_MORE, data[:100]))
        wait_until(lambda: len(stored_files(config)) == 1)
        stopping = threading.Thread(target=listener._server.drain, args=(5.0,))
        stopping.start()
        wait_until(lambda: listener._server.stopping)
        peer.send(raw_peer.fragment(3, raw_peer.DATA_LAST, data[100:]))
        assert peer.answer() == SUCCESS
        assert peer.closed()
        stopping.join()
    assert len(rows(config, select(Instance))) == 1
