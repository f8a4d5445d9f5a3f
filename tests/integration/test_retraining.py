"""Retraining by the clock and by hand, with real child processes on an archive that is still empty."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from clearfilm import config as configuration
from clearfilm.process import process_name
from clearfilm.retraining import FOLDER, LOG, OUTCOME, unfinished
from cli.retrain import steps
from db import intake, reports, schema, training_runs
from db.governance import RunOutcome
from db.intake import ReceivedFilm, StudyAttributes
from db.models import Audit, Instance, InstanceState, ReportSource, ReportStatus
from db.reports import ReceivedReport
from db.session import Database
from tests.integration.commands import Outcome, clearfilm
from worker.retraining import Retraining, new_films
from worker.schedule import Schedule

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Site:
    """A node that retrains."""

    folder: Path
    database: Database

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def root(self) -> Path:
        return self.folder / "data" / FOLDER

    def call(self, *arguments: str) -> Outcome:
        return clearfilm(self.config_path, *arguments)

    def retraining(self, stop: threading.Event | None = None) -> Retraining:
        config = configuration.load(self.config_path)
        return Retraining(config, self.config_path, self.database, stop or threading.Event())

    def outcome(self) -> dict[str, str]:
        """Of the newest retraining."""
        folder = sorted(path for path in self.root.iterdir() if path.is_dir())[-1]
        told: dict[str, str] = json.loads((folder / OUTCOME).read_text())
        return told

    def events(self) -> list[tuple[str, str]]:
        with self.database.read() as session:
            return [tuple(row) for row in session.execute(select(Audit.event, Audit.actor).order_by(Audit.id))]

    def film(self, number: int, *, reported: bool) -> None:
        received = ReceivedFilm(
            study=StudyAttributes(study_instance_uid=f"1.{number}"),
            sop_instance_uid=f"1.{number}.1",
            sop_class_uid="1.2",
            series_instance_uid=None,
            transfer_syntax_uid="1.2",
            digest="d" * 64,
            size=1,
            path=f"films/{number}",
            sender="demo",
            calling_ae_title="X",
        )
        with self.database.begin() as session:
            intake.record(session, received, now=NOW, quiet=timedelta(0))
            film = session.scalars(select(Instance).order_by(Instance.id.desc())).first()
            assert film
            film.state = InstanceState.ANALYSED
            if reported:
                said = ReceivedReport(
                    ReportSource.CSV, ReportStatus.FINAL, "", f"{number}", study_instance_uid=f"1.{number}"
                )
                reports.record(session, said, now=NOW)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "config.yaml").write_text(
        "retraining: {enabled: true, cron: 30 2 * * sun, time_zone: Asia/Shanghai, minimum_new_films: 2}\n"
    )
    database = Database(f"sqlite:///{tmp_path}/data/clearfilm.sqlite")
    schema.prepare(database)
    yield Site(tmp_path, database)
    database.close()


def retrainings(process: psutil.Process) -> list[psutil.Process]:
    """Its children that retrain."""
    return [child for child in process.children() if "retrain" in child.cmdline()]


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_step_that_fails_ends_the_retraining_for_good(site: Site) -> None:
    outcome = site.call("retrain", "--user", "Anna")
    assert outcome.returncode == 1
    assert "cohort ended with code 1" in outcome.stdout
    assert site.outcome() == {"outcome": "failed", "step": "cohort", "detail": "cohort ended with code 1"}
    assert site.events() == [("retraining started", "Anna"), ("retraining ended", "Anna")]
    assert unfinished(site.root) is None
    assert "no retraining was interrupted" in site.call("retrain", "--resume").stdout


def test_interrupted_retraining_is_not_forgotten(site: Site) -> None:
    interrupted = site.root / "2026-03-01-020000"
    interrupted.mkdir(parents=True)
    outcome = site.call("retrain")
    assert outcome.returncode == 1
    assert "--resume" in outcome.stderr
    assert not (interrupted / OUTCOME).exists()
    site.retraining().resume_retraining()
    assert json.loads((interrupted / OUTCOME).read_text())["outcome"] == "failed"
    assert site.events() == [("retraining resumed", "schedule"), ("retraining ended", "schedule")]
    assert "cohort ended with code 1" in (site.root / LOG).read_text()


def test_interrupted_retraining_is_gone_on_with_when_the_clock_comes_whatever_came_before(site: Site) -> None:
    done, interrupted = site.root / "2026-05-01-020000", site.root / "2026-03-01-020000"  # the clock stepped back
    for folder in (done, interrupted):
        folder.mkdir(parents=True)
    (done / OUTCOME).write_text("{}")
    site.retraining().start_retraining()
    assert json.loads((interrupted / OUTCOME).read_text())["outcome"] == "failed"
    assert site.events() == [("retraining resumed", "schedule"), ("retraining ended", "schedule")]
    assert unfinished(site.root) is None


def test_only_one_at_a_time(site: Site) -> None:
    with site.database.only_one("retraining"):
        outcome = site.call("retrain")
    assert outcome.returncode == 1
    assert "another retraining process" in outcome.stderr


def test_stop_of_the_node_ends_the_child_and_the_next_start_goes_on(site: Site) -> None:
    """The child waits for the database's write lock, which this test holds, until the schedule stops."""
    for number in range(2):
        site.film(number, reported=True)
    stop = threading.Event()
    thread = threading.Thread(target=site.retraining(stop).start_retraining)
    with site.database.begin() as session:
        session.connection()  # takes the lock
        thread.start()
        until(lambda: site.root.is_dir() and unfinished(site.root) is not None)
        assert [child.nice() for child in retrainings(psutil.Process())] == [19]
        stop.set()
        thread.join(timeout=30)
    assert retrainings(psutil.Process()) == []
    assert unfinished(site.root) is not None
    site.retraining().resume_retraining()
    assert unfinished(site.root) is None


def test_child_ends_with_a_parent_that_is_killed(site: Site) -> None:
    interrupted = site.root / "2026-03-01-020000"
    interrupted.mkdir(parents=True)
    program = (
        "import sys; from pathlib import Path; from clearfilm import config; from worker.retraining import Retraining;"
        "import threading; path = Path(sys.argv[1]);"
        "Retraining(config.load(path), path, None, threading.Event()).resume_retraining()"
    )
    with site.database.begin() as session:
        session.connection()
        parent = subprocess.Popen([sys.executable, "-c", program, str(site.config_path)], cwd=REPOSITORY)
        family = psutil.Process(parent.pid)
        until(lambda: [child.nice() for child in retrainings(family)] == [19])
        children = retrainings(family)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert psutil.wait_procs(children, timeout=60)[1] == []
    # It did not end because it gave up waiting for the database, which would have told.
    assert "clearfilm:" not in (site.root / LOG).read_text(encoding="utf-8")
    assert unfinished(site.root) == interrupted


def test_clock_is_that_of_the_configured_zone(site: Site) -> None:
    due = site.retraining().trigger().get_next_fire_time(None, NOW)
    assert due is not None
    # Sunday 8 March 2026, 02:30 in Shanghai.
    assert due.astimezone(UTC) == datetime(2026, 3, 7, 18, 30, tzinfo=UTC)


def test_too_few_new_films_start_nothing(site: Site) -> None:
    site.film(1, reported=True)
    site.film(2, reported=False)
    site.retraining().start_retraining()
    assert not site.root.exists()
    with site.database.read() as session:
        assert new_films(session) == 1


def test_films_of_an_earlier_training_are_not_new(site: Site) -> None:
    site.film(1, reported=True)
    with site.database.begin() as session:
        run = training_runs.begin(
            session, folder="/r", cohort_digest="c" * 64, cohort_folder="/c", cohort={}, settings={},
            started_by="Anna", owner="x", now=NOW + timedelta(days=1),
        )  # fmt: skip
        assert new_films(session) == 1
        training_runs.end(session, run.id, RunOutcome.FINISHED, now=NOW + timedelta(days=2))
        assert new_films(session) == 0


def test_schedule_notices_a_training_that_died(site: Site) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = f"{process_name().rpartition(':')[0]}:{gone.pid}"
    with site.database.begin() as session:
        training_runs.begin(
            session, folder="/r", cohort_digest="c" * 64, cohort_folder="/c", cohort={}, settings={},
            started_by="Anna", owner=owner, now=NOW,
        )  # fmt: skip
    stop = threading.Event()
    config = configuration.load(site.config_path)
    schedule = Schedule(config, site.database, site.retraining(stop))
    thread = threading.Thread(target=schedule.run, args=(stop,))
    thread.start()
    try:
        until(lambda: ("training died", "Anna") in site.events())
    finally:
        stop.set()
        thread.join(timeout=30)


def test_steps_that_are_done_are_known_by_what_they_leave(tmp_path: Path) -> None:
    partial = tmp_path / "evaluation"
    partial.mkdir()
    (partial / "plots.svg").touch()
    plan = steps(Path("/config.yaml"), tmp_path, "Anna")
    assert [step.name for step in plan] == ["cohort", "training", "evaluation", "registration"]
    assert not partial.exists()  # half an evaluation is none
    assert "--resume" not in plan[1].arguments
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    assert "--resume" in steps(Path("/config.yaml"), tmp_path, "Anna")[1].arguments
