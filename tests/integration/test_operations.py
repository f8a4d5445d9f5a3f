"""What admins do to work, on both databases: nothing twice, everything can be seen and taken back in time."""

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from db import intake, operations, queue
from db.intake import ReceivedFilm, StudyAttributes
from db.models import Audit, Instance, InstanceState, Job, JobKind, JobState, Study, StudyState
from db.queue import ClaimedJob
from db.session import Database

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
QUIET = timedelta(seconds=10)


def receive(database: Database, study: str = "1.2.3", instance: str | None = None) -> None:
    film = ReceivedFilm(
        study=StudyAttributes(study_instance_uid=study),
        sop_instance_uid=instance or f"{study}.{secrets.randbelow(10**9)}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        series_instance_uid="1.2.3.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=secrets.token_hex(32),
        size=100,
        path=f"films/{secrets.token_hex(8)}.dcm",
        sender="demo",
        calling_ae_title="MODALITY",
    )
    with database.begin() as session:
        intake.record(session, film, now=NOW, quiet=QUIET)


def job(database: Database, kind: JobKind = JobKind.ANALYSE) -> Job:
    with database.read() as session:
        found = session.scalars(select(Job).where(Job.kind == kind).order_by(Job.id.desc())).first()
    assert found is not None
    return found


def fail_film(database: Database, reason: str) -> None:
    with database.begin() as session:
        claimed = queue.claim(session, JobKind.ANALYSE, owner="test", now=NOW)
        assert claimed
        queue.fail(session, claimed, error=reason, now=NOW)
        film = session.get_one(Instance, claimed.instance_id)
        film.state, film.reason = InstanceState.FAILED, reason


def events(database: Database, event: str) -> int:
    with database.read() as session:
        return len(session.scalars(select(Audit).where(Audit.event == event)).all())


def test_failures_are_counted_by_reason(database: Database) -> None:
    for number in range(3):
        receive(database, f"1.2.{number}")
    fail_film(database, "analysis failed: unexpected ValueError")
    fail_film(database, "analysis failed: unexpected ValueError")
    fail_film(database, "the stored file is missing")
    with database.read() as session:
        counted = {found.reason: found.count for found in operations.reasons(session)}
        assert counted == {"analysis failed: unexpected ValueError": 2, "the stored file is missing": 1}
        assert operations.sizes(session)["failed"] == 3
        assert [f.reason for f in operations.failures(session, reason="the stored file is missing")] == [
            "the stored file is missing"
        ]


def test_retry_twice_queues_one_job(database: Database) -> None:
    receive(database)
    fail_film(database, "x")
    with database.read() as session:
        (failure,) = operations.failures(session)
    done = []
    for _ in range(2):
        with database.begin() as session:
            done.append(operations.retry(session, failure.key, actor="ann", now=NOW))
    assert done == [True, False]
    with database.read() as session:
        states = session.scalars(select(Job.state).where(Job.kind == JobKind.ANALYSE).order_by(Job.id)).all()
        assert states == [JobState.DONE, JobState.QUEUED]
        assert operations.failures(session) == []
    assert events(database, "tried again") == 1


@pytest.mark.parametrize("key", ["", "film", "film:x:", "film:-1:", "nothing:1:", "film:" + "9" * 40 + ":"])
def test_hostile_key_names_no_failure(database: Database, key: str) -> None:
    with database.begin() as session, pytest.raises(ValueError, match="no failure"):
        operations.retry(session, key, actor="ann", now=NOW)


def test_cancelled_work_comes_back_within_the_time_to_undo(database: Database) -> None:
    receive(database)
    number = job(database).id
    with database.begin() as session:
        assert operations.cancel(session, [number], actor="ann", now=NOW) == 1
        assert operations.cancel(session, [number], actor="bob", now=NOW) == 0
    with database.begin() as session:
        assert queue.claim(session, JobKind.ANALYSE, owner="test", now=NOW) is None
        assert operations.undo_cancel(session, [number], actor="ann", now=NOW + timedelta(seconds=5)) == 1
        assert operations.undo_cancel(session, [number], actor="ann", now=NOW + timedelta(seconds=5)) == 0
    with database.begin() as session:
        assert queue.claim(session, JobKind.ANALYSE, owner="test", now=NOW + timedelta(seconds=5)) is not None
    assert (events(database, "work cancelled"), events(database, "cancellation taken back")) == (1, 1)


def test_cancellation_takes_effect_once_when_the_time_is_over(database: Database) -> None:
    receive(database)
    number = job(database).id
    with database.begin() as session:
        operations.cancel(session, [number], actor="ann", now=NOW)
    followed: list[tuple[ClaimedJob, str]] = []
    later = NOW + operations.UNDO
    for moment in (NOW, later, later):
        with database.begin() as session:
            operations.settle_cancelled(session, lambda *what: followed.append(what), now=moment)
    assert [(claimed.id, error) for claimed, error in followed] == [(number, "cancelled by ann")]
    with database.begin() as session:
        assert operations.undo_cancel(session, [number], actor="ann", now=later) == 0


def test_result_of_running_work_that_was_cancelled_is_not_published(database: Database) -> None:
    receive(database)
    with database.begin() as session:
        claimed = queue.claim(session, JobKind.ANALYSE, owner="test", now=NOW)
        assert claimed
    with database.begin() as session:
        operations.cancel(session, [claimed.id], actor="ann", now=NOW)
    with database.begin() as session, pytest.raises(queue.LostLease):
        queue.finish(session, claimed, now=NOW)


def test_undone_conclusion_does_not_collide_with_the_one_of_a_later_film(database: Database) -> None:
    receive(database)
    number = job(database, JobKind.CONCLUDE).id
    with database.begin() as session:
        operations.cancel(session, [number], actor="ann", now=NOW)
    receive(database)
    with database.begin() as session:
        operations.undo_cancel(session, [number], actor="ann", now=NOW)
    with database.read() as session:
        waiting = select(Job).where(Job.kind == JobKind.CONCLUDE, Job.state == JobState.QUEUED)
        assert len(session.scalars(waiting).all()) == 1


def test_priority_goes_to_all_waiting_work_of_the_study(database: Database) -> None:
    receive(database)
    number = job(database).id
    for changed in (1, 0):
        with database.begin() as session:
            assert operations.set_priority(session, [number], 2, actor="ann", now=NOW) == changed
    with database.read() as session:
        assert set(session.scalars(select(Job.priority))) == {2}
        assert session.scalars(select(Study.priority)).one() == 2


def test_failed_conclusion_is_tried_again(database: Database) -> None:
    receive(database)
    with database.begin() as session:
        study = session.scalars(select(Study)).one()
        study.state, study.reason = StudyState.FAILED, "conclusion failed: x"
    with database.read() as session:
        (failure,) = operations.failures(session)
        assert (failure.kind, failure.reason) == ("study", "conclusion failed: x")
    with database.begin() as session:
        assert operations.retry(session, failure.key, actor="ann", now=NOW)
        assert session.scalars(select(Study.state)).one() is StudyState.OPEN
