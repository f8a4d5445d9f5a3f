"""From stored films and reports in a real database to a cohort."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from clearfilm.errors import TrainingError
from cli import cohort as commands
from cli.training_record import describe_cohort
from db import intake, reports, schema, training_runs
from db.intake import ReceivedFilm, StudyAttributes
from db.models import Instance, InstanceState, ReportSource, ReportStatus
from db.reports import ReceivedReport
from db.session import Database
from tests import result_factories
from training.archive import read_archive
from training.cohort import Cohort, build, load
from training.evaluation import label_audit
from training.split import KEY_FILE

DX = "1.2.840.10008.5.1.4.1.1.1.1"


class Node:
    """A data folder with films and a database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(f"sqlite:///{folder / 'clearfilm.sqlite'}")
        schema.prepare(self.database)

    def receive(
        self, patient: str | None, *, state: InstanceState = InstanceState.ANALYSED, reason: str | None = None
    ) -> str:
        """A film of a new study; the study's UID."""
        ds = result_factories.header(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
        ds.Manufacturer, ds.ManufacturerModelName, ds.ViewPosition = "Maker", "M1", "PA"
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = f"films/{ds.SOPInstanceUID}.dcm"
        (self.folder / "films").mkdir(exist_ok=True)
        ds.save_as(self.folder / path, enforce_file_format=True)
        study = StudyAttributes(
            study_instance_uid=str(ds.StudyInstanceUID), patient_id=patient, patient_sex="F", study_date="20240501"
        )
        film = ReceivedFilm(
            study=study,
            sop_instance_uid=str(ds.SOPInstanceUID),
            sop_class_uid=DX,
            series_instance_uid=str(ds.SeriesInstanceUID),
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
            digest=f"{hash(path) % 10**16:064}",
            size=1,
            path=path,
            sender="demo",
            calling_ae_title="MODALITY",
        )
        with self.database.begin() as session:
            intake.record(session, film, now=self.database.now(session), quiet=timedelta(0))
            instance = session.query(Instance).order_by(Instance.id.desc()).first()
            assert instance is not None
            instance.state, instance.reason = state, reason
        return str(ds.StudyInstanceUID)

    def report(
        self,
        study: str,
        label: str | None,
        *,
        tags: tuple[str, ...] = (),
        status: ReportStatus = ReportStatus.FINAL,
        text: str = "text",
    ) -> None:
        with self.database.begin() as session:
            text = f"{text} {status.value} {study}" if label is not None else text
            report = ReceivedReport(ReportSource.CSV, status, "", text, study_instance_uid=study)
            reports.record(session, report, now=self.database.now(session))
            if label is not None:
                number = [reading.report_id for reading in reports.current(session)][-1]
                reports.set_label(session, number, label=label, rule="rule", span="", tags=tags, lexicon_version="1")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.database.close()


def test_films_with_a_clear_report_make_a_cohort_and_the_others_are_counted(node: Node, tmp_path: Path) -> None:
    node.report(node.receive("A"), "no_finding")
    node.report(node.receive("B"), "finding", tags=("critical",))
    node.report(node.receive("C"), "indeterminate")
    node.report(node.receive("D"), None)
    node.report(node.receive(None), "finding")
    node.report(node.receive("E", state=InstanceState.NOT_ANALYSED, reason="view LL"), "finding")
    node.receive("F")
    with node.database.read() as session:
        selection = read_archive(session, tmp_path)
    cohort = build(selection, tmp_path / "cohort", root=tmp_path, source="archive", key=b"key")
    assert sorted((film.label, film.tags) for film in cohort.films) == [("abnormal", "critical"), ("normal", "")]
    assert cohort.manifest.excluded == {
        "no patient ID": 1,
        "no report": 1,
        "not analysed: view LL": 1,
        "the report has no label yet: run clearfilm reports label": 1,
        "the report is indeterminate": 1,
    }
    film = cohort.films[0]
    assert (film.view, film.sex, film.date, film.device) == ("PA", "F", "20260102", "Maker M1")
    assert film.report.startswith("report ")


def test_only_final_reports_count(node: Node, tmp_path: Path) -> None:
    early, lonely, whole = (node.receive(name) for name in ("EARLY", "LONELY", "WHOLE"))
    early_and_more = node.receive("EARLY AND MORE")
    node.report(early, "no_finding", status=ReportStatus.PRELIMINARY)
    node.report(lonely, "no_finding", status=ReportStatus.ADDENDUM)
    node.report(whole, None)
    node.report(whole, "finding", status=ReportStatus.ADDENDUM)
    node.report(early_and_more, None, status=ReportStatus.PRELIMINARY)
    node.report(early_and_more, "no_finding", status=ReportStatus.ADDENDUM)
    with node.database.read() as session:
        selection = read_archive(session, node.folder)
    assert [candidate.identity for candidate in selection.candidates] == ["WHOLE"]
    assert sorted(reason for _, reason in selection.excluded) == [
        "a preliminary report only",
        "a preliminary report only",
        "an addendum without its report",
    ]


def test_archive_whose_split_key_was_lost_gets_no_other_test_patients(node: Node, tmp_path: Path) -> None:
    for name in ("ONE", "TWO"):
        node.report(node.receive(name), None, text="Pneumonia.")
    config = tmp_path / "config.yaml"
    config.write_text("data_folder: .\n")
    first = build_cohort(config, tmp_path / "first")
    with node.database.begin() as session:
        training_runs.begin(
            session, folder="run", cohort_digest="c" * 64, cohort_folder="first", cohort=describe_cohort(first),
            settings={}, started_by="anna", owner="nobody", now=node.database.now(session),
        )  # fmt: skip
    build_cohort(config, tmp_path / "second")
    (tmp_path / KEY_FILE).rename(tmp_path / "kept.key")
    with pytest.raises(TrainingError, match="restore it from a backup"):
        build_cohort(config, tmp_path / "third")
    (tmp_path / KEY_FILE).write_bytes(b"made by somebody")
    with pytest.raises(TrainingError, match="restore it from a backup"):
        build_cohort(config, tmp_path / "third")
    build_cohort(config, tmp_path / "fourth", key_file=tmp_path / "kept.key")


def build_cohort(config: Path, out: Path, key_file: Path | None = None) -> Cohort:
    commands.build_cohort(config, out, folder=None, table=None, key_file=key_file, scheme="patient", temporal_from=None)
    return load(out)


def test_film_whose_file_is_gone_is_counted(node: Node, tmp_path: Path) -> None:
    node.report(node.receive("A"), "finding")
    for path in (tmp_path / "films").iterdir():
        path.unlink()
    with node.database.read() as session:
        selection = read_archive(session, tmp_path)
    assert [reason for _, reason in selection.excluded] == ["the file cannot be read (FileNotFoundError)"]


def test_blind_audits_of_the_archives_reports_are_scored(node: Node) -> None:
    with node.database.read() as session:
        assert label_audit.from_database(session) is None
    for label, reader in (("no_finding", "no_finding"), ("no_finding", "finding"), ("finding", "finding")):
        node.report(node.receive(f"P-{label}-{reader}"), label)
        with node.database.begin() as session:
            number = [reading.report_id for reading in reports.current(session)][-1]
            reports.record_audit(session, number, reader="R", label=reader, now=node.database.now(session))
    with node.database.read() as session:
        found = label_audit.from_database(session)
    assert found is not None
    assert found.reports == 3
    assert found.precision is not None
    assert found.recall is not None
    assert (found.precision.value, found.recall.value) == (0.5, 1.0)
