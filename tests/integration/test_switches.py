"""Pauses in the running processes: a listener on real sockets, the loops of worker and sender."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from clearfilm.config import Config
from db import associations, switches
from db.associations import AssociationEntry, Outcome
from db.models import Instance, Job, JobKind, JobState
from db.session import Database
from db.switches import Stage
from storescp.main import RunningListener
from tests.integration.listening import configuration, film, listening
from tests.integration.raw_peer import AC, DX, RJ, VERIFICATION, Answer, RawPeer
from tests.waiting import until
from worker.analyse import Analyser

STORAGE = ((1, VERIFICATION), (3, DX))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configuration(tmp_path)


@pytest.fixture
def listener(config: Config) -> Iterator[RunningListener]:
    with listening(config) as running:
        yield running


@pytest.fixture
def rows(config: Config, listener: RunningListener) -> Iterator[Database]:
    database = Database(config.database_url)
    yield database
    database.close()


def pause(database: Database, stage: Stage) -> None:
    with database.begin() as session:
        assert switches.pause(session, stage, reason="maintenance", actor="ann", now=database.now(session))


def resume(database: Database, stage: Stage) -> None:
    with database.begin() as session:
        assert switches.resume(session, stage, actor="bob", now=database.now(session))


def answer_to(port: int, **how: object) -> tuple[int, ...]:
    """Kind of the answer to an association request, with result, source and reason of a rejection."""
    with RawPeer(port) as peer:
        answer = peer.associate(**how)
        assert answer is not None, "connection closed"
        kind, body = answer
        return (kind, *body[1:4]) if kind == RJ else (kind,)


def test_paused_reception_turns_senders_away_for_now_and_answers_echo(
    listener: RunningListener, rows: Database
) -> None:
    pause(rows, Stage.RECEIVE)
    until(lambda: answer_to(listener.port) == (RJ, 2, 3, 1))
    with RawPeer(listener.port) as peer:
        assert peer.accepted(contexts=[(1, VERIFICATION)]).echo() == Answer(0, "")
    resume(rows, Stage.RECEIVE)
    until(lambda: answer_to(listener.port) == (AC,))


def test_open_association_is_told_to_send_later(listener: RunningListener, rows: Database) -> None:
    with RawPeer(listener.port) as peer:
        peer.accepted(contexts=STORAGE)
        assert peer.store(film("1.2.3.4"), instance="1.2.3.4").status == 0
        pause(rows, Stage.RECEIVE)
        numbers = iter(range(5, 1000))

        def is_refused() -> bool:
            instance = f"1.2.3.{next(numbers)}"
            return peer.store(film(instance), instance=instance).status == 0xA700

        until(is_refused)


def test_pause_outlives_the_listener(config: Config) -> None:
    with listening(config):
        database = Database(config.database_url)
        pause(database, Stage.RECEIVE)
        database.close()
    with listening(config) as again:
        assert answer_to(again.port) == (RJ, 2, 3, 1)


def test_second_pause_and_second_resume_change_nothing(rows: Database) -> None:
    pause(rows, Stage.SEND)
    with rows.begin() as session:
        now = rows.now(session)
        assert not switches.pause(session, Stage.SEND, reason="other", actor="bob", now=now)
        assert switches.paused(session)[Stage.SEND].reason == "maintenance"
    resume(rows, Stage.SEND)
    with rows.begin() as session:
        assert not switches.resume(session, Stage.SEND, actor="bob", now=rows.now(session))


def test_paused_worker_claims_no_film(rows: Database, config: Config, listener: RunningListener) -> None:
    with RawPeer(listener.port) as peer:
        assert peer.accepted(contexts=STORAGE).store(film(), instance="1.2.3.4").status == 0
    pause(rows, Stage.ANALYSE)
    nobody: Any = None  # neither decoders nor a network are needed while nothing may be claimed
    Analyser(config, rows, nobody, nobody, nobody, nobody, nobody)._claim_ahead()
    with rows.read() as session:
        assert set(session.scalars(select(Job.state).where(Job.kind == JobKind.ANALYSE))) == {JobState.QUEUED}


def test_denied_association_is_logged_with_what_differs(listener: RunningListener, rows: Database) -> None:
    for _ in range(3):
        assert answer_to(listener.port, calling="STRANGER") == (RJ, 1, 1, 3)
    assert answer_to(listener.port, called="OTHER") == (RJ, 1, 1, 7)
    until(lambda: len(entries(rows, Outcome.DENIED)) >= 2)
    found = {entry.calling_ae_title: entry for entry in entries(rows, Outcome.DENIED)}
    assert found["STRANGER"].reason == "its address is listed with another title"
    assert sum(e.times for e in entries(rows, Outcome.DENIED) if e.calling_ae_title == "STRANGER") == 3
    assert found["MODALITY"].reason == "it calls 'OTHER', this node is 'CLEARFILM'"


def test_accepted_association_is_logged_with_its_films(listener: RunningListener, rows: Database) -> None:
    with RawPeer(listener.port) as peer:
        peer.accepted(contexts=STORAGE)
        assert peer.store(film(), instance="1.2.3.4").status == 0
        assert peer.store(film(), instance="1.2.3.5").status == 0xA900
        peer.release()
    until(lambda: entries(rows, Outcome.ACCEPTED))
    (entry,) = entries(rows, Outcome.ACCEPTED)
    assert (entry.peer, entry.stored, entry.refused) == ("room 1", 1, 1)
    assert entry.refusal == "SOP Instance UID of data set and command differ"


def test_trusted_sender_is_let_in_within_seconds_and_out_again(listener: RunningListener, rows: Database) -> None:
    assert answer_to(listener.port, calling="CR_ROOM4") == (RJ, 1, 1, 3)
    with rows.begin() as session:
        added = associations.trust(
            session, name="room 4", ae_title="CR_ROOM4", address="127.0.0.1", taken=(), actor="ann",
            now=rows.now(session),
        )  # fmt: skip
    until(lambda: answer_to(listener.port, calling="CR_ROOM4") == (AC,))
    assert answer_to(listener.port, calling="CR_ROOM5") == (RJ, 1, 1, 3)
    with RawPeer(listener.port) as peer:
        assert peer.accepted(calling="CR_ROOM4", contexts=STORAGE).store(film(), instance="1.2.3.4").status == 0
    with rows.begin() as session:
        assert session.scalars(select(Instance.sender)).one() == "room 4"
        assert associations.revoke(session, added.id, actor="ann", now=rows.now(session))
    until(lambda: answer_to(listener.port, calling="CR_ROOM4") == (RJ, 1, 1, 3))


def test_log_is_bounded_and_a_flood_of_one_kind_keeps_the_others(rows: Database, monkeypatch: Any) -> None:
    monkeypatch.setattr(associations, "KEPT", 10)

    def call(outcome: Outcome, number: int) -> tuple[associations.Call, datetime]:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        return associations.Call(outcome, f"T{number}", "CLEARFILM", "10.0.0.1", None, "", at=at), at

    with rows.begin() as session:
        associations.write(session, [call(Outcome.DENIED, 1)])
        associations.write(session, [call(Outcome.ACCEPTED, number) for number in range(50)])
    assert [entry.calling_ae_title for entry in entries(rows, Outcome.DENIED)] == ["T1"]
    assert [entry.calling_ae_title for entry in entries(rows, Outcome.ACCEPTED)] == [f"T{n}" for n in range(49, 39, -1)]


def entries(database: Database, outcome: Outcome) -> Sequence[AssociationEntry]:
    with database.read() as session:
        return associations.newest(session, outcome)
