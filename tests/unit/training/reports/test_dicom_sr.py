"""Reports out of DICOM SR files."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from clearfilm.dicom.uids import IMPLEMENTATION_CLASS_UID
from clearfilm.errors import RefusedReport
from db.models import ReportStatus
from training.reports import dicom_sr

BASIC_TEXT = "1.2.840.10008.5.1.4.1.1.88.11"


def code(value: str, scheme: str, meaning: str) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def text(value: str, name: Dataset) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence, item.TextValue = [name], value
    return item


def container(name: Dataset, *items: Dataset) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
    item.ConceptNameCodeSequence, item.ContentSequence = [name], list(items)
    return item


def write(path: Path, *items: Dataset, **attributes: str) -> Path:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = UID(attributes.pop("maker", "1.2.3.99"))
    ds.SpecificCharacterSet = "GB18030"
    ds.SOPClassUID, ds.SOPInstanceUID = attributes.pop("sop_class", BASIC_TEXT), "1.2.3.4"
    ds.StudyInstanceUID, ds.AccessionNumber, ds.PatientID = "1.2.3", "ACC1", "P1"
    ds.ContentDate, ds.ContentTime = "20260301", "120000.5"
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "VERIFIED"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = [code("18748-4", "LN", "Diagnostic Imaging Report")]
    ds.ContentSequence = list(items)
    ds.save_as(path, enforce_file_format=True)
    return path


FINDINGS = container(code("121070", "DCM", "Findings"), text("两肺清晰", code("121071", "DCM", "Finding")))
IMPRESSION = container(
    code("121072", "DCM", "Impressions"), text("两肺心膈未见异常", code("121073", "DCM", "Impression"))
)


def test_text_below_the_headings_of_tid_2000(tmp_path: Path) -> None:
    report = dicom_sr.extract(write(tmp_path / "a.dcm", FINDINGS, IMPRESSION))
    assert (report.findings, report.impression) == ("两肺清晰", "两肺心膈未见异常")
    assert (report.accession_number, report.study_instance_uid, report.patient_id) == ("ACC1", "1.2.3", "P1")
    assert report.status is ReportStatus.FINAL
    assert report.reported_at is not None


def test_text_without_headings_is_split_by_its_words(tmp_path: Path) -> None:
    item = text("FINDINGS: Clear.\nIMPRESSION: Normal.", code("1", "99X", "Report"))
    report = dicom_sr.extract(write(tmp_path / "a.dcm", item))
    assert (report.findings, report.impression) == ("Clear.", "Normal.")


def test_what_is_not_complete_is_preliminary_and_an_addendum_is_one(tmp_path: Path) -> None:
    partial = dicom_sr.extract(write(tmp_path / "a.dcm", FINDINGS, CompletionFlag="PARTIAL"))
    assert partial.status is ReportStatus.PRELIMINARY
    added = container(code("55107-7", "LN", "Addendum"), text("右侧气胸", code("121073", "DCM", "Impression")))
    assert dicom_sr.extract(write(tmp_path / "b.dcm", added)).status is ReportStatus.ADDENDUM


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"maker": IMPLEMENTATION_CLASS_UID}, "a result of this node"),
        ({"SeriesDescription": "AI CXR triage: NO SIGNIFICANT FINDING"}, "a result of this node"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.1"}, "not a text report"),
    ],
)
def test_our_own_results_and_other_objects_are_no_reports(
    tmp_path: Path, attributes: dict[str, str], reason: str
) -> None:
    with pytest.raises(RefusedReport, match=reason):
        dicom_sr.extract(write(tmp_path / "a.dcm", FINDINGS, **attributes))


def test_a_folder_gives_a_row_for_each_file(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", IMPRESSION)
    (tmp_path / "b.dcm").write_bytes(b"no")
    good, bad = dicom_sr.read_folder(tmp_path)
    assert good.report
    assert (bad.place, bad.refusal) == ("b.dcm", "not a DICOM file")


def test_files_of_an_export_are_found_whatever_their_names(tmp_path: Path) -> None:
    (tmp_path / "ST0").mkdir()
    write(tmp_path / "ST0" / "IM000001", text("Clear.", code("121071", "DCM", "Finding")))
    write(tmp_path / "1.2.840.99", text("Mass.", code("121071", "DCM", "Finding")))
    (tmp_path / "README").write_text("no DICOM file")
    found = [row.report.findings for row in dicom_sr.read_folder(tmp_path) if row.report]
    assert found == ["Mass.", "Clear."]


def test_foreign_reports_are_read_or_refused_with_a_reason(shared: Path) -> None:
    folder = shared / "data" / "dicom-zoo" / "files"
    rows = [dicom_sr.read_file(path) for path in sorted(folder.iterdir()) if path.is_file()]
    assert rows
    assert all(row.report or row.refusal for row in rows)
