"""The commands as an administrator calls them: what they print, and their exit codes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from clearfilm.triage import Decision
from db import schema
from db.models import (
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    Job,
    JobKind,
    JobState,
    Result,
    ResultKind,
    Study,
    StudyState,
)
from db.session import Database
from tests import bundle_factories
from tests.integration.commands import clearfilm

REPOSITORY = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
UID = "1.2.3"


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        "destinations: [{name: pacs, ae_title: PACS, host: 127.0.0.1, port: 9}]\n"
        "disk: {low_water_percent: 0, low_water_gigabytes: 0}\n"
        "model: {bundle: bundle}\n"
    )
    return path


@pytest.fixture
def database(config_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{config_path.parent}/data/clearfilm.sqlite")
    schema.prepare(opened)
    yield opened
    opened.close()


def add_study(database: Database, uid: str = UID, state: StudyState = StudyState.CONCLUDED) -> int:
    """A study of one film, concluded once, that has been sent nowhere yet."""
    with database.begin() as session:
        study = Study(
            study_instance_uid=uid,
            state=state,
            revision=1,
            decision=Decision.SIGNIFICANT_FINDING,
            first_received_at=NOW,
            last_received_at=NOW,
            concluded_at=NOW + SECOND,
        )
        session.add(study)
        session.flush()
        session.add(
            Instance(
                study_id=study.id,
                sop_instance_uid=f"{uid}.1",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                digest="a" * 64,
                size=1,
                path=f"films/{uid}.dcm",
                sender="room 1",
                calling_ae_title="XR1",
                received_at=NOW,
                state=InstanceState.ANALYSED,
            )
        )
        kinds = [ResultKind.SECONDARY_CAPTURE, *[ResultKind.REPORT] * 3]
        for position, kind in enumerate(kinds):
            result = Result(
                study_id=study.id,
                revision=1,
                kind=kind,
                sop_class_uid="1.2",
                sop_instance_uid=f"{uid}.9.{position}",
                series_instance_uid=f"{uid}.9",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                position=position,
                path=f"results/{uid}.{position}.dcm",
                digest="b" * 64,
                decision=Decision.SIGNIFICANT_FINDING,
                created_at=NOW + SECOND,
            )
            session.add(result)
            session.flush()
            session.add(Delivery(result_id=result.id, destination="pacs", created_at=NOW + SECOND))
        return study.id


def set_deliveries(database: Database, position: int, **values: object) -> None:
    with database.begin() as session:
        results = select(Result.id).where(Result.position == position)
        session.execute(update(Delivery).where(Delivery.result_id.in_(results)).values(**values))


def events(config_path: Path) -> list[str]:
    """The lines of `clearfilm study`, without the times."""
    lines = clearfilm(config_path, "study", UID).stdout.splitlines()
    return [line.split("+00:00", 1)[1].strip() for line in lines if "+00:00" in line]


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "x", "--to", "X"],
        ["send", "x", "--to", "ÄÖ@host:1"],
        ["send", "x", "--to", "PACS@127.0.0.1:9", "--from", "TOO_LONG_AE_TITLE_XXXX"],
        ["send", "x", "--to", "PACS@127.0.0.1:9", "--from", "ÄÖ"],
        ["resend", UID, "--to", "nowhere"],
        ["retry"],
        ["retry", UID, "--all"],
        ["status", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_code_2(arguments: list[str], config_path: Path, database: Database) -> None:
    add_study(database)
    outcome = clearfilm(config_path, *arguments)
    assert outcome.returncode == 2
    assert outcome.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"CLEARFILM_NODE": "abc"},
        {"CLEARFILM_SENDERS": "abc"},
        {"CLEARFILM_DATABASE__URL": "foo"},
        {"CLEARFILM_DATABASE__URL": "mysql://host/x"},
        {"CLEARFILM_DATABASE__URL": "sqlite://"},
    ],
)
def test_bad_configuration_ends_with_code_78(environment: dict[str, str], config_path: Path) -> None:
    assert clearfilm(config_path, "status", **environment).returncode == 78


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["study", UID],
        ["resend", UID],
        ["retry", UID],
        ["retry", "--all"],
        ["model", "list"],
        ["model", "show", "abc"],
        ["model", "promote", "abc", "--user", "x", "--reason", "y"],
        ["model", "rollback", "--user", "x", "--reason", "y"],
        ["retrain"],
    ],
    ids=" ".join,
)
def test_command_on_a_missing_database_makes_none(arguments: list[str], config_path: Path) -> None:
    outcome = clearfilm(config_path, *arguments)
    assert outcome.returncode == 1
    assert "there is no database at" in outcome.stderr
    assert "--config" in outcome.stderr
    assert not (config_path.parent / "data").exists()


@pytest.mark.peer
def test_postgresql_without_tables_counts_as_missing(config_path: Path, postgresql_url: str) -> None:
    url = postgresql_url.replace("clearfilm@", "clearfilm:secret@")
    outcome = clearfilm(config_path, "status", CLEARFILM_DATABASE__URL=url)
    assert outcome.returncode == 1
    assert "there is no database at postgresql+psycopg://clearfilm:***@127.0.0.1" in outcome.stderr


def test_missing_driver_of_postgresql_is_named(config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    outcome = clearfilm(config_path, "status", CLEARFILM_DATABASE__URL="postgresql+psycopg://127.0.0.1:9/x")
    assert outcome.returncode == 1
    assert "install the extra `postgres`" in outcome.stderr


def test_check_before_the_first_start_makes_no_database(config_path: Path) -> None:
    bundle_factories.write(config_path.parent / "bundle")
    outcome = clearfilm(config_path, "check")
    assert outcome.returncode == 0
    assert "database: none yet; the first start makes it" in outcome.stdout
    assert not list(config_path.parent.rglob("*.sqlite*"))


@pytest.mark.parametrize(("found", "words"), [("0000", "next start"), ("9999", "newer version")])
def test_database_of_another_version_is_not_touched(
    found: str, words: str, config_path: Path, database: Database
) -> None:
    with database.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found})
    outcome = clearfilm(config_path, "status")
    assert outcome.returncode == 1
    assert f"schema {found}" in outcome.stderr
    assert words in outcome.stderr
    checked = clearfilm(config_path, "check")
    assert f"schema {found}" in checked.stdout + checked.stderr
    with database.read() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == found


def test_check_warns_about_a_data_folder_that_others_may_open(config_path: Path, database: Database) -> None:
    bundle_factories.write(config_path.parent / "bundle")
    folder = config_path.parent / "data"
    folder.chmod(0o755)
    outcome = clearfilm(config_path, "check")
    assert outcome.returncode == 0
    assert "warning: other users may open it (mode 0755)" in outcome.stdout
    folder.chmod(0o700)
    assert "warning" not in clearfilm(config_path, "check").stdout


def test_files_of_commands_are_for_their_user_alone() -> None:
    code = "import os, cli.main; cli.main.app = lambda: print(oct(os.umask(0))); cli.main.main()"
    outcome = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "0o77"


def test_timeline_tells_conclusion_commitment_and_the_chosen_report_alone(
    config_path: Path, database: Database
) -> None:
    add_study(database)
    for position in (0, 1):
        set_deliveries(
            database,
            position,
            state=DeliveryState.COMMITTED,
            dicom_status=0,
            sent_at=NOW + 2 * SECOND,
            committed_at=NOW + 3 * SECOND,
        )
    for position in (2, 3):
        set_deliveries(database, position, state=DeliveryState.NOT_CHOSEN)
    assert events(config_path) == [
        "film received from room 1",
        "concluded: revision 1, significant finding",
        "SC made, revision 1",
        "SR made, revision 1",
        "SC stored at pacs (0x0000)",
        "SR stored at pacs (0x0000)",
        "SC committed at pacs",
        "SR committed at pacs",
    ]


def test_failed_and_waiting_deliveries_stand_at_their_time(config_path: Path, database: Database) -> None:
    study_id = add_study(database)
    for position in range(4):
        set_deliveries(database, position, last_error="refused")
    assert events(config_path)[2:] == [
        "SC made, revision 1",
        "SC waits for pacs: refused",
        "SR made, revision 1",
        "SR waits for pacs: refused",
    ]
    for position in range(4):
        set_deliveries(database, position, state=DeliveryState.FAILED)
    with database.begin() as session:
        session.add(
            Job(
                kind=JobKind.DELIVER,
                state=JobState.FAILED,
                study_id=study_id,
                destination="pacs",
                revision=1,
                run_after=NOW,
                created_at=NOW,
                finished_at=NOW + 5 * SECOND,
            )
        )
    assert events(config_path)[-2:] == ["SC failed at pacs: refused", "SR failed at pacs: refused"]
    assert "12:00:05+00:00  SR failed" in clearfilm(config_path, "study", UID).stdout


@pytest.mark.parametrize(
    ("state", "reason", "heading"),
    [
        (StudyState.CONCLUDED, None, "concluded: revision 1, significant finding"),
        (StudyState.OPEN, None, "open"),
        (StudyState.FAILED, "conclusion failed: disk", "failed: conclusion failed: disk"),
    ],
)
def test_only_a_concluded_study_shows_a_decision_on_top(
    state: StudyState, reason: str | None, heading: str, config_path: Path, database: Database
) -> None:
    add_study(database, state=state)
    with database.begin() as session:
        session.execute(update(Study).values(reason=reason))
    assert clearfilm(config_path, "study", UID).stdout.splitlines()[1] == heading


def test_retry_all_queues_what_failed_of_every_study(config_path: Path, database: Database) -> None:
    add_study(database, "1.2.1")  # nothing wrong with it
    film, conclusion, delivery = (add_study(database, f"1.2.{number}") for number in (2, 3, 4))
    with database.begin() as session:
        session.execute(update(Instance).where(Instance.study_id == film).values(state=InstanceState.FAILED))
        session.execute(update(Study).where(Study.id == conclusion).values(state=StudyState.FAILED))
        of_study = select(Result.id).where(Result.study_id == delivery, Result.position == 0)
        session.execute(
            update(Delivery).where(Delivery.result_id.in_(of_study)).values(state=DeliveryState.FAILED, refusals=3)
        )
    outcome = clearfilm(config_path, "retry", "--all")
    assert outcome.returncode == 0
    assert outcome.stdout.strip() == "3 studies: 1 film and 1 delivery wait again"
    with database.read() as session:
        jobs = session.execute(select(Job.study_id, Job.kind).order_by(Job.study_id)).all()
        assert [tuple(row) for row in jobs] == [
            (film, JobKind.ANALYSE),
            (conclusion, JobKind.CONCLUDE),
            (delivery, JobKind.DELIVER),
        ]
    assert json.loads(clearfilm(config_path, "status", "--json").stdout)["studies"]["open"] == 2
    assert clearfilm(config_path, "retry", "--all").stdout.startswith("0 studies")
