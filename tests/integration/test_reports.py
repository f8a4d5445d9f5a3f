"""Reports in the database: kept once, superseded, matched; and the commands, with real processes."""

import csv
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select, text

from db import intake, reports, schema
from db.intake import ReceivedFilm, StudyAttributes
from db.models import Report, ReportAudit, ReportSource, ReportStatus, Study
from db.reports import ReceivedReport
from db.session import Database
from training.labels import lexicon
from training.labels.labeller import Labeller, label_current

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'clearfilm.sqlite'}"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_url")
        name = f"test_{secrets.token_hex(6)}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        url = server.replace("/postgres", f"/{name}")
    opened = Database(url)
    schema.prepare(opened)
    yield opened
    opened.close()


def report(**changes: object) -> ReceivedReport:
    values: dict[str, object] = {
        "source": ReportSource.CSV,
        "status": ReportStatus.FINAL,
        "findings": "两肺清晰",
        "impression": "两肺心膈未见异常",
        "accession_number": "A1",
    }
    return ReceivedReport(**{**values, **changes})  # type: ignore[arg-type]


def keep(database: Database, *, now: datetime = NOW, **changes: object) -> bool:
    with database.begin() as session:
        return reports.record(session, report(**changes), now=now)


def receive_study(database: Database, uid: str = "1.2.3", accession: str = "A1", patient: str | None = "P1") -> None:
    film = ReceivedFilm(
        study=StudyAttributes(study_instance_uid=uid, accession_number=accession, patient_id=patient),
        sop_instance_uid=f"{uid}.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        series_instance_uid=None,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=secrets.token_hex(32),
        size=1,
        path=f"films/{secrets.token_hex(8)}",
        sender="demo",
        calling_ae_title="MODALITY",
    )
    with database.begin() as session:
        intake.record(session, film, now=NOW, quiet=HOUR)


def current(database: Database) -> list[reports.Reading]:
    with database.read() as session:
        return list(reports.current(session))


def test_the_same_report_is_kept_once(database: Database) -> None:
    assert keep(database)
    assert not keep(database)
    assert len(current(database)) == 1


def test_a_correction_supersedes_and_an_older_report_does_not(database: Database) -> None:
    keep(database, reported_at=NOW)
    keep(database, impression="右侧气胸", reported_at=NOW + HOUR)
    keep(database, impression="更早", reported_at=NOW - HOUR)
    assert [one.impression for one in current(database)] == ["右侧气胸"]


def test_a_preliminary_report_never_supersedes_a_final_one(database: Database) -> None:
    keep(database, status=ReportStatus.PRELIMINARY, impression="a", reported_at=NOW)
    assert [one.status for one in current(database)] == [ReportStatus.PRELIMINARY]
    keep(database, impression="b", reported_at=NOW + HOUR)
    keep(database, status=ReportStatus.PRELIMINARY, impression="c", reported_at=NOW + 2 * HOUR)
    assert [one.impression for one in current(database)] == ["b"]


@pytest.mark.parametrize("addendum_first", [False, True])
def test_an_addendum_is_read_together_with_its_report(database: Database, addendum_first: bool) -> None:
    final = {"reported_at": NOW}
    added = {"status": ReportStatus.ADDENDUM, "findings": "", "impression": "右侧气胸", "reported_at": NOW + HOUR}
    for changes in (added, final) if addendum_first else (final, added):
        keep(database, **changes)
    (one,) = current(database)
    assert one.impression == "两肺心膈未见异常\n右侧气胸"
    assert one.status is ReportStatus.FINAL


def test_a_correction_replaces_report_and_addendum(database: Database) -> None:
    keep(database, reported_at=NOW)
    keep(database, status=ReportStatus.ADDENDUM, impression="b", reported_at=NOW + HOUR)
    keep(database, impression="c", reported_at=NOW + 2 * HOUR)
    assert [one.impression for one in current(database)] == ["c"]


def test_reports_of_different_patients_with_one_accession_number_stay_apart(database: Database) -> None:
    keep(database, patient_id="P1")
    keep(database, patient_id="P2")
    assert len(current(database)) == 2


def test_a_report_waits_for_its_study(database: Database) -> None:
    keep(database, patient_id="P1")
    with database.begin() as session:
        assert reports.match_waiting(session).waiting == 1
    receive_study(database)
    with database.begin() as session:
        found = reports.match_waiting(session)
    assert (found.matched, found.waiting) == (1, 0)
    with database.begin() as session:
        assert reports.match_waiting(session).matched == 0


def test_a_report_of_a_study_that_is_here_is_matched_at_once(database: Database) -> None:
    receive_study(database)
    keep(database, accession_number=None, study_instance_uid="1.2.3")
    assert current(database)[0].study_id is not None


def test_matching_joins_reports_with_different_keys(database: Database) -> None:
    keep(database, impression="a", reported_at=NOW)
    keep(database, accession_number=None, study_instance_uid="1.2.3", impression="b", reported_at=NOW + HOUR)
    assert len(current(database)) == 2
    receive_study(database)
    with database.begin() as session:
        assert reports.match_waiting(session).matched == 2
    assert [one.impression for one in current(database)] == ["b"]


def test_ambiguous_and_contradicting_reports_are_counted_and_not_matched(database: Database) -> None:
    receive_study(database, "1.2.3", "A1")
    receive_study(database, "1.2.4", "A1")
    keep(database)
    receive_study(database, "1.2.5", "A2")
    keep(database, accession_number="A2", patient_id="P9")
    with database.begin() as session:
        found = reports.match_waiting(session)
    assert (found.matched, found.ambiguous, found.contradicted, found.waiting) == (0, 1, 1, 2)


def test_labels_follow_the_text_and_the_lexicon(database: Database) -> None:
    labeller = Labeller(lexicon.load())
    keep(database, reported_at=NOW)
    assert label_current(database, labeller).total() == 1
    assert label_current(database, labeller).total() == 0
    assert current(database)[0].label == "no_finding"
    keep(database, status=ReportStatus.ADDENDUM, findings="", impression="右侧气胸", reported_at=NOW + HOUR)
    label_current(database, labeller)
    assert [one.label for one in current(database)] == ["finding"]
    assert label_current(database, Labeller(lexicon.load(), "strict")).total() == 1
    with database.read() as session:
        row = session.scalars(select(Report).where(Report.superseded_by.is_(None))).one()
        assert (row.tags, row.span, row.language) == (["critical"], "气胸", "zh")
        assert reports.counts(session) == {"finding": 1}


def test_a_human_label_is_kept_once_for_each_reader(database: Database) -> None:
    keep(database)
    number = current(database)[0].report_id
    for label in ("finding", "no_finding"):
        with database.begin() as session:
            assert reports.record_audit(session, number, reader="li", label=label, now=NOW)
    with database.begin() as session:
        assert not reports.record_audit(session, 999, reader="li", label="finding", now=NOW)
        assert session.scalars(select(ReportAudit.label)).all() == ["no_finding"]


STUDY_OF_THE_FIRST_SCHEMA = """
INSERT INTO studies
    (study_instance_uid, accession_number, patient_id, priority, state, revision, first_received_at, last_received_at)
VALUES ('1.2.3', 'A1', 'P1', 0, 'open', 0, :now, :now)
"""


def test_a_first_schema_with_data_is_upgraded(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    database = Database(f"sqlite:///{tmp_path / 'old.sqlite'}")
    with database.begin() as session:
        config = Config()
        config.set_main_option("script_location", str(REPOSITORY / "db" / "migrations"))
        config.attributes["connection"] = session.connection()
        command.upgrade(config, "0001")
        session.execute(text(STUDY_OF_THE_FIRST_SCHEMA), {"now": "2026-01-02 03:04:05.000000"})
    schema.prepare(database)
    keep(database)
    with database.read() as session:
        assert session.scalars(select(Study.accession_number)).all() == ["A1"]
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == schema.HEAD
    assert current(database)[0].study_id is not None
    database.close()


def configuration(tmp_path: Path, extra: str = "") -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"data_folder: data\n{extra}", encoding="utf-8")
    return path


def clearfilm(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def write_reports(path: Path, number: int, encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["检查号", "findings", "impression"])
        writer.writerows([f"A{place}", "两肺清晰", f"两肺心膈未见异常。第{place}号"] for place in range(number))
    return path


def test_import_tells_bad_rows_and_a_second_run_adds_nothing(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    source = write_reports(tmp_path / "reports.csv", 5, "gb18030")
    with source.open("a", encoding="gb18030") as stream:
        stream.write(",no key,\n")
    command = ("reports", "import", source, "--mapping", "accession_number=检查号", "--config", config)
    first, second = clearfilm(*command), clearfilm(*command)
    assert first.returncode == second.returncode == 1
    assert "line 7: refused: neither accession number nor Study Instance UID" in first.stderr
    assert "5 added, 0 known already, 1 refused" in first.stdout
    assert "0 added, 5 known already, 1 refused" in second.stdout
    assert "5 reports wait for their study" in second.stdout


def test_a_killed_import_is_continued_without_doubles(tmp_path: Path) -> None:
    number = 3000
    config = configuration(tmp_path)
    source = write_reports(tmp_path / "reports.csv", number)
    command = ["reports", "import", str(source), "--mapping", "accession_number=检查号", "--config", str(config)]
    process = subprocess.Popen([sys.executable, "-m", "cli.main", *command], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    file = tmp_path / "data" / "clearfilm.sqlite"
    deadline = time.monotonic() + 60
    while not (file.exists() and 0 < stored(file) < number):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert stored(file) < number
    again = clearfilm(*command)
    assert again.returncode == 0, again.stderr
    assert stored(file) == number
    assert "0 refused" in again.stdout


def stored(file: Path) -> int:
    database = Database(f"sqlite:///{file}")
    try:
        with database.read() as session:
            if not session.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = 'reports'")):
                return 0
            return session.scalar(select(func.count()).select_from(Report)) or 0
    finally:
        database.close()


def test_label_keeps_all_columns_and_adds_four(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(
        'report_id,extra,findings,impression\n1,x,,两肺心膈未见异常\n2,y,Lungs clear.,\n3,z,,"右侧气胸,\n危急"\n4,,,\n',
        encoding="utf-8",
    )
    done = clearfilm("reports", "label", "--csv", source, "--out", out)
    assert done.returncode == 0, done.stderr
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["report_id", "extra", "findings", "impression", "label", "rule", "span", "tags"]
    assert [row["label"] for row in rows] == ["no_finding", "no_finding", "finding", "indeterminate"]
    assert [row["extra"] for row in rows] == ["x", "y", "z", ""]
    assert rows[2]["tags"] == "critical"


def test_label_without_a_column_says_which(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("report_id,findings\n1,a\n", encoding="utf-8")
    done = clearfilm("reports", "label", "--csv", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert done.returncode == 1
    assert "impression" in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_audit_is_blind_and_scored_with_intervals(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    source = write_reports(tmp_path / "reports.csv", 10)
    clearfilm("reports", "import", source, "--mapping", "accession_number=检查号", "--config", config)
    sample = tmp_path / "sample.csv"
    drawn = clearfilm("reports", "audit", "--sample", 6, "--out", sample, "--config", config)
    assert drawn.returncode == 0, drawn.stderr
    with sample.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["report_id", "findings", "impression", "human_label"]
    assert len({row["report_id"] for row in rows}) == 6
    with sample.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"human_label": "no_finding"} for row in rows)
    scored = clearfilm("reports", "audit", "--score", sample, "--user", "li", "--config", config)
    assert scored.returncode == 0, scored.stderr
    assert "precision: 1.000 (95 % interval 0.541 to 1.000)" in scored.stdout
    database = Database(f"sqlite:///{tmp_path / 'data' / 'clearfilm.sqlite'}")
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(ReportAudit)) == 6
    database.close()
