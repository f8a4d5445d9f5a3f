"""What happens by the clock."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from clearfilm.config import Config
from clearfilm.errors import StartupError
from clearfilm.process import is_dead, process_name
from db import audit, intake, queue, reports, schema
from db.intake import ReceivedFilm, StudyAttributes
from db.models import (
    Audit,
    Instance,
    InstanceState,
    Job,
    JobKind,
    JobState,
    Report,
    ReportSource,
    ReportStatus,
    Study,
    StudyState,
)
from db.reports import ReceivedReport
from db.session import Database
from worker.schedule import BACKUPS, Schedule


@dataclass
class Clockwork:
    """A schedule with one received film."""

    schedule: Schedule
    database: Database
    folder: Path
    film: Path

    def claim(self, owner: str, now: datetime) -> queue.ClaimedJob | None:
        with self.database.begin() as session:
            return queue.claim(session, JobKind.ANALYSE, owner=owner, now=now)


@pytest.fixture
def clockwork(tmp_path: Path) -> Iterator[Clockwork]:
    database = Database(f"sqlite:///{tmp_path / 'clearfilm.sqlite'}")
    schema.prepare(database)
    film = tmp_path / "films" / "aa" / "aa.dcm"
    film.parent.mkdir(parents=True)
    film.write_bytes(b"film")
    received = ReceivedFilm(
        study=StudyAttributes(study_instance_uid="1.2.3"),
        sop_instance_uid="1.2.3.4",
        sop_class_uid="1.2",
        series_instance_uid=None,
        transfer_syntax_uid="1.2",
        digest="a" * 64,
        size=4,
        path="films/aa/aa.dcm",
        sender="demo",
        calling_ae_title="MODALITY",
    )
    with database.begin() as session:
        intake.record(session, received, now=database.now(session), quiet=timedelta(0))
    config = Config(data_folder=tmp_path, retention={"days": 7}, study={"quiet_seconds": 0})  # type: ignore[arg-type]
    yield Clockwork(Schedule(config, database), database, tmp_path, film)
    database.close()


def test_i7_a_film_that_killed_three_workers_fails_and_its_study_is_concluded(clockwork: Clockwork) -> None:
    dead = process_name().rpartition(":")[0] + ":4194305"  # above the largest process number of Linux
    for _ in range(3):
        with clockwork.database.read() as session:
            now = clockwork.database.now(session)
        assert clockwork.claim(dead, now)
        clockwork.schedule.end_exhausted_jobs()
    with clockwork.database.read() as session:
        instance = session.scalars(select(Instance)).one()
        assert instance.state is InstanceState.FAILED
        assert "3 times" in (instance.reason or "")
        waiting = session.scalars(select(Job.kind).where(Job.state == JobState.QUEUED)).all()
        assert waiting == [JobKind.CONCLUDE]


def test_the_lease_of_a_living_process_stands(clockwork: Clockwork) -> None:
    with clockwork.database.read() as session:
        now = clockwork.database.now(session)
    assert clockwork.claim(process_name(), now)
    clockwork.schedule.end_exhausted_jobs()
    assert clockwork.claim("other:1", now) is None
    assert not is_dead(process_name())
    assert not is_dead("otherhost:1:4194305")
    assert not is_dead(f"x:{os.getpid()}")


def test_a_study_that_nothing_would_conclude_is_found(clockwork: Clockwork) -> None:
    with clockwork.database.begin() as session:
        session.execute(update(Job).values(state=JobState.DONE))
        session.execute(update(Instance).values(state=InstanceState.NOT_ANALYSED))
    clockwork.schedule.conclude_forgotten_studies()
    with clockwork.database.read() as session:
        assert session.scalars(select(Job.kind).where(Job.state == JobState.QUEUED)).all() == [JobKind.CONCLUDE]


def test_a_report_that_came_before_its_study_finds_it(clockwork: Clockwork) -> None:
    report = ReceivedReport(ReportSource.HL7, ReportStatus.FINAL, "", "clear", accession_number="A1")
    with clockwork.database.begin() as session:
        reports.record(session, report, now=clockwork.database.now(session))
        session.execute(update(Study).values(accession_number="A1"))
    clockwork.schedule.match_reports()
    with clockwork.database.read() as session:
        assert session.scalars(select(Report.study_id)).one() == session.scalars(select(Study.id)).one()


def test_retention_deletes_rows_and_files_of_old_finished_studies_and_says_so(clockwork: Clockwork) -> None:
    with clockwork.database.begin() as session:
        now = clockwork.database.now(session)
        session.execute(update(Job).values(state=JobState.DONE))
        session.execute(update(Study).values(state=StudyState.CONCLUDED, last_received_at=now - timedelta(days=8)))
    clockwork.schedule.delete_old_studies()
    assert not clockwork.film.exists()
    with clockwork.database.read() as session:
        assert session.scalars(select(Study)).all() == []
        assert session.scalars(select(Instance)).all() == []
        assert session.scalars(select(Audit.event)).all() == ["study deleted by retention"]
        assert audit.first_broken(session) is None


def test_retention_keeps_what_is_unfinished_or_young(clockwork: Clockwork) -> None:
    with clockwork.database.begin() as session:
        old = clockwork.database.now(session) - timedelta(days=8)
        session.execute(update(Study).values(state=StudyState.CONCLUDED, last_received_at=old))
    clockwork.schedule.delete_old_studies()
    assert clockwork.film.exists()


def test_files_that_a_crash_left_without_a_row_go_after_an_hour(clockwork: Clockwork) -> None:
    orphan, young = clockwork.folder / "results" / "aa" / "old.dcm", clockwork.folder / "maps" / "bb" / "new.npz"
    for path in (orphan, young):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    os.utime(orphan, (0, 0))
    clockwork.schedule.delete_orphans()
    assert not orphan.exists()
    assert young.exists()
    assert clockwork.film.exists()


def test_one_backup_a_day_and_only_the_newest_are_kept(clockwork: Clockwork) -> None:
    folder = clockwork.folder / BACKUPS
    folder.mkdir()
    for day in range(1, 10):
        (folder / f"clearfilm-2020-01-0{day}.sqlite").touch()
    clockwork.schedule.back_up()
    clockwork.schedule.back_up()
    kept = sorted(folder.iterdir())
    assert len(kept) == 7
    copy = Database(f"sqlite:///{kept[-1]}")
    with copy.read() as session:
        assert session.scalars(select(Study.study_instance_uid)).all() == ["1.2.3"]
    copy.close()


def test_a_second_schedule_on_the_same_database_is_refused(clockwork: Clockwork) -> None:
    with (
        clockwork.database.only_one("schedule"),
        pytest.raises(StartupError, match="another schedule"),
        clockwork.database.only_one("schedule"),
    ):
        pass
