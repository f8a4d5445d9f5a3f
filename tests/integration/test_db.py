"""The same rules on SQLite and on a real PostgreSQL."""

import multiprocessing
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, inspect, select, text, update

from clearfilm.errors import LostLease, StartupError
from db import audit, intake, queue, schema
from db.intake import Outcome, ReceivedFilm, StudyAttributes
from db.models import Audit, Base, Instance, InstanceState, Job, JobKind, JobState, Study, StudyState
from db.session import Database

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
QUIET = timedelta(seconds=10)


def film(**changes: object) -> ReceivedFilm:
    study = StudyAttributes(study_instance_uid="1.2.3", patient_name="王^小明", ordered_priority=None)
    values = {
        "study": study,
        "sop_instance_uid": "1.2.3.4",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1",
        "series_instance_uid": "1.2.3.5",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "digest": "a" * 64,
        "size": 100,
        "path": f"films/{secrets.token_hex(8)}.dcm",
        "sender": "demo",
        "calling_ae_title": "MODALITY",
    }
    return ReceivedFilm(**{**values, **changes})  # type: ignore[arg-type]


def receive(database: Database, *, now: datetime = NOW, **changes: object) -> Outcome:
    with database.begin() as session:
        return intake.record(session, film(**changes), now=now, quiet=QUIET)


def claim(database: Database, kind: JobKind = JobKind.ANALYSE, *, now: datetime = NOW) -> queue.ClaimedJob | None:
    with database.begin() as session:
        return queue.claim(session, kind, owner="test", now=now)


def test_migrated_schema_equals_the_models(url: str, tmp_path: Path) -> None:
    migrated = Database(url)
    schema.prepare(migrated)
    with migrated.read() as session:
        found = inspect(session.connection())
        for table in Base.metadata.sorted_tables:
            assert {column["name"] for column in found.get_columns(table.name)} == set(table.columns.keys())
            assert {index["name"] for index in found.get_indexes(table.name)} >= {index.name for index in table.indexes}
    migrated.close()


def test_prepare_is_repeatable_and_refuses_a_newer_database(database: Database) -> None:
    schema.prepare(database)
    with database.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartupError, match="newer"):
        schema.prepare(database)


def test_a_film_is_recorded_with_its_analysis_and_conclusion(database: Database) -> None:
    assert receive(database) is Outcome.NEW
    with database.read() as session:
        kinds = session.execute(select(Job.kind, Job.run_after).order_by(Job.id)).all()
        assert [tuple(row) for row in kinds] == [(JobKind.ANALYSE, NOW), (JobKind.CONCLUDE, NOW + QUIET)]
        assert session.scalars(select(Study.patient_name)).one() == "王^小明"


def test_same_uid_and_bytes_add_nothing(database: Database) -> None:
    receive(database)
    assert receive(database) is Outcome.DUPLICATE
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Instance)) == 1
        assert session.scalar(select(func.count()).select_from(Job)) == 2


def test_same_uid_with_other_bytes_keeps_both_and_marks_the_conflict(database: Database) -> None:
    receive(database)
    assert receive(database, digest="b" * 64) is Outcome.CONFLICT
    with database.read() as session:
        assert session.scalars(select(Instance.conflict)).all() == [True, True]
        assert audit.first_broken(session) is None
        assert session.scalars(select(Audit.event)).all() == ["film received again with other bytes"]


def test_a_late_film_opens_the_study_and_moves_its_only_conclusion(database: Database) -> None:
    receive(database)
    with database.begin() as session:
        session.execute(update(Study).values(state=StudyState.CONCLUDED))
    receive(database, now=NOW + 5 * SECOND, sop_instance_uid="1.2.3.9", digest="c" * 64)
    with database.read() as session:
        assert session.scalars(select(Study.state)).one() is StudyState.OPEN
        runs = session.scalars(select(Job.run_after).where(Job.kind == JobKind.CONCLUDE)).all()
        assert runs == [NOW + 15 * SECOND]


def test_urgent_studies_come_first_then_the_oldest(database: Database) -> None:
    for number, priority in enumerate(["", "ROUTINE", "HIGH", "STAT", ""]):
        study = StudyAttributes(study_instance_uid=f"1.{number}", ordered_priority=priority)
        receive(database, now=NOW + number * SECOND, study=study, sop_instance_uid=f"1.{number}.1")
    claimed = [claim(database, now=NOW + 60 * SECOND) for _ in range(6)]
    assert [job.study_id if job else None for job in claimed] == [4, 3, 1, 2, 5, None]


def test_a_later_film_raises_the_priority_of_its_study_and_of_what_waits(database: Database) -> None:
    receive(database)
    for number, order in enumerate(["STAT", "HIGH", None]):
        study = StudyAttributes(study_instance_uid="1.2.3", ordered_priority=order)
        receive(database, study=study, sop_instance_uid=f"1.2.3.4.{number}", digest=str(number) * 64)
    receive(database, study=StudyAttributes(study_instance_uid="1.9"), sop_instance_uid="1.9.1")
    with database.read() as session:
        studies = [(study.priority, study.ordered_priority) for study in session.scalars(select(Study).order_by("id"))]
        assert studies == [(queue.PRIORITY_STAT, "STAT"), (queue.PRIORITY_ROUTINE, None)]
        jobs = Counter(session.scalars(select(Job.priority)))
        assert jobs == {queue.PRIORITY_STAT: 5, queue.PRIORITY_ROUTINE: 2}


def test_a_restored_film_is_analysed_and_concluded_again(database: Database) -> None:
    receive(database)
    job = claim(database)
    assert job is not None
    with database.begin() as session:
        queue.fail(session, job, error="no file", now=NOW)
        session.execute(update(Job).values(state=JobState.DONE))
        session.execute(update(Instance).values(state=InstanceState.FAILED, reason="the stored file is missing"))
        session.execute(update(Study).values(state=StudyState.CONCLUDED))
    for _ in range(2):
        with database.begin() as session:
            intake.revive(session, 1, now=NOW + SECOND, quiet=QUIET)
    with database.read() as session:
        instance = session.scalars(select(Instance)).one()
        assert (instance.state, instance.reason) == (InstanceState.QUEUED, None)
        assert session.scalars(select(Study.state)).one() is StudyState.OPEN
        open_jobs = session.scalars(select(Job.kind).where(Job.state == JobState.QUEUED)).all()
        assert Counter(open_jobs) == {JobKind.ANALYSE: 1, JobKind.CONCLUDE: 1}
        assert session.scalars(select(Audit.event)).all() == ["lost film restored"]


def test_a_job_is_not_claimed_before_its_time(database: Database) -> None:
    receive(database)
    assert claim(database, JobKind.CONCLUDE, now=NOW + QUIET - SECOND) is None
    assert claim(database, JobKind.CONCLUDE, now=NOW + QUIET) is not None


def test_expired_lease_is_claimed_again_and_the_first_owner_cannot_publish(database: Database) -> None:
    receive(database)
    first = claim(database)
    assert first
    assert claim(database, now=NOW + queue.LEASE) is None
    second = claim(database, now=NOW + queue.LEASE + SECOND)
    assert second
    assert second.attempts == 2
    with pytest.raises(LostLease), database.begin() as session:
        queue.finish(session, first, now=NOW)
    with database.begin() as session:
        queue.finish(session, second, now=NOW)
    with database.read() as session:
        assert session.scalars(select(Job.state).where(Job.id == first.id)).one() is JobState.DONE


def test_heartbeat_keeps_the_lease(database: Database) -> None:
    receive(database)
    job = claim(database)
    assert job
    with database.begin() as session:
        queue.extend(session, [job], now=NOW + 60 * SECOND)
    assert claim(database, now=NOW + queue.LEASE + SECOND) is None


def test_a_job_that_kills_its_worker_fails_after_three_claims(database: Database) -> None:
    receive(database)
    later = NOW
    for _ in range(3):
        assert claim(database, now=later)
        later += queue.LEASE + SECOND
    assert claim(database, now=later) is None
    with database.begin() as session:
        exhausted = queue.take_exhausted(session, now=later)
    assert [job.kind for job in exhausted] == [JobKind.ANALYSE]
    with database.read() as session:
        assert session.scalars(select(Job.state).where(Job.id == exhausted[0].id)).one() is JobState.FAILED


def test_orderly_postponement_is_no_strike(database: Database) -> None:
    receive(database)
    for number in range(5):
        job = claim(database, now=NOW + number * SECOND)
        assert job
        assert job.attempts == 1
        with database.begin() as session:
            queue.postpone(session, job, run_after=NOW + (number + 1) * SECOND, error="peer is away")
    with database.read() as session:
        assert session.scalars(select(Job.retries).where(Job.kind == JobKind.ANALYSE)).one() == 5


def test_audit_chain_tells_a_changed_and_a_removed_record(database: Database) -> None:
    for number in range(4):
        with database.begin() as session:
            audit.record(session, "event", actor="test", now=NOW + number * SECOND, number=number)
    with database.read() as session:
        assert audit.first_broken(session) is None
    with database.begin() as session:
        session.execute(text("DELETE FROM audit WHERE id = 2"))
    with database.read() as session:
        assert audit.first_broken(session) == 3


def _drain(url: str, results: "multiprocessing.Queue[list[int]]") -> None:
    database = Database(url)
    done = []
    while True:
        with database.begin() as session:
            job = queue.claim(session, JobKind.ANALYSE, owner="test", now=NOW)
        if job is None:
            break
        with database.begin() as session:
            queue.finish(session, job, now=NOW)
        done.append(job.id)
    database.close()
    results.put(done)


def test_no_job_runs_twice_with_several_processes(database: Database) -> None:
    for number in range(60):
        receive(database, sop_instance_uid=f"1.{number}", digest=f"{number:064d}")
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[list[int]] = context.Queue()
    url = database.url.render_as_string(hide_password=False)
    workers = [context.Process(target=_drain, args=(url, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    ran = Counter(job for _ in workers for job in results.get(timeout=120))
    for worker in workers:
        worker.join(timeout=60)
    assert len(ran) == 60
    assert set(ran.values()) == {1}


def test_naive_times_are_refused(database: Database) -> None:
    with pytest.raises(Exception, match="time zone"):
        receive(database, now=NOW.replace(tzinfo=None))


def test_damaged_sqlite_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(secrets.token_bytes(20_000))
    with pytest.raises(StartupError, match="restore a backup"):
        schema.prepare(Database(f"sqlite:///{tmp_path / 'x.sqlite'}"))


def test_backup_is_a_whole_database(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite'}")
    schema.prepare(database)
    receive(database)
    database.backup(tmp_path / "copy.sqlite")
    database.checkpoint()
    copy = Database(f"sqlite:///{tmp_path / 'copy.sqlite'}")
    with copy.read() as session:
        assert session.scalar(select(func.count()).select_from(Instance)) == 1
    database.close()
    copy.close()
