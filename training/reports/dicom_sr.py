"""Reports out of DICOM SR files: Basic Text, Enhanced, Comprehensive; tree as in TID 2000."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from clearfilm.dicom.uids import IMPLEMENTATION_CLASS_UID
from clearfilm.errors import RefusedReport
from db.models import ReportSource, ReportStatus
from db.reports import ReceivedReport
from training.reports import parts
from training.reports.import_csv import Row

_TEXT_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.88.22"})
# Comprehensive and Comprehensive 3D: mostly measurements, which must not pass for a radiologist's report.
_MIXED_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.34"})
# Concept names (code value, coding scheme designator) of PS3.16 CID 7001 and CID 7002, DICOM and LOINC.
_IMPRESSION = frozenset(
    {
        ("121072", "DCM"),  # Impressions
        ("121073", "DCM"),  # Impression
        ("121076", "DCM"),  # Conclusions
        ("121077", "DCM"),  # Conclusion
        ("19005-8", "LN"),  # Radiology - Impression
    }
)
_FINDINGS = frozenset(
    {
        ("121070", "DCM"),  # Findings
        ("121071", "DCM"),  # Finding
        ("59776-5", "LN"),  # Procedure Findings
        ("18782-3", "LN"),  # Radiology Study observation
    }
)
_ADDENDUM = frozenset({("121078", "DCM"), ("55107-7", "LN")})
_MAXIMUM_ITEMS = 20_000
_MAXIMUM_FILE = 16 << 20


def files_of(folder: Path) -> list[Path]:
    """Every DICOM file below a folder, in the order of names: by its suffix, or by its beginning (PS3.10 7.1)."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and _is_dicom(path))


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() == ".dcm":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_folder(folder: Path) -> Iterator[Row]:
    """The reports of `files_of` a folder."""
    return map(read_file, files_of(folder))


def read_file(path: Path) -> Row:
    """One SR file as a row: a report, or the reason why it is refused."""
    try:
        return Row(path.name, extract(path))
    except RefusedReport as error:
        return Row(path.name, None, str(error))


def extract(path: Path) -> ReceivedReport:
    """The report in an SR file.

    Parameters
    ----------
    path : pathlib.Path
        A DICOM file (PS3.10).

    Returns
    -------
    ReceivedReport
        Text of what stands below "Findings" and "Impression"; without such headings, in text reports, all text.

    Raises
    ------
    RefusedReport
        If it is no readable SR, a result of this node, or has no text or no key.
    """
    try:
        if path.stat().st_size > _MAXIMUM_FILE:
            raise RefusedReport("larger than 16 MiB")
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        return _report(ds)
    except (InvalidDicomError, OSError, EOFError) as error:
        raise RefusedReport("not a DICOM file") from error
    except (AttributeError, KeyError, ValueError, TypeError, NotImplementedError, RecursionError) as error:
        raise RefusedReport(f"the data set cannot be read ({type(error).__name__})") from error


def _report(ds: Dataset) -> ReceivedReport:
    sop_class = str(ds.get("SOPClassUID", ""))
    if sop_class not in _TEXT_CLASSES | _MIXED_CLASSES:
        raise RefusedReport("not a text report (SOP Class)")
    maker = str(ds.file_meta.get("ImplementationClassUID", ""))
    if maker == IMPLEMENTATION_CLASS_UID or str(ds.get("SeriesDescription", "")).startswith("AI CXR triage"):
        raise RefusedReport("a result of this node, not a radiologist's report")
    texts: dict[str, list[str]] = {"findings": [], "impression": [], "": []}
    addendum = False
    for part, text, added in _texts(ds):
        texts[part].append(text)
        addendum |= added
    findings, impression = "\n".join(texts["findings"]), "\n".join(texts["impression"])
    if not findings and not impression:
        if sop_class in _MIXED_CLASSES:
            raise RefusedReport("neither findings nor impression (measurements only)")
        findings, impression = parts.split("\n".join(texts[""]))
    request = next(iter(ds.get("ReferencedRequestSequence") or []), Dataset())
    return parts.checked(
        ReportSource.SR,
        findings=findings,
        impression=impression,
        accession_number=str(ds.get("AccessionNumber") or request.get("AccessionNumber") or ""),
        study_instance_uid=str(ds.get("StudyInstanceUID") or ""),
        patient_id=str(ds.get("PatientID") or ""),
        report_status=ReportStatus.ADDENDUM if addendum else _status(ds),
        reported_at=parts.moment(str(ds.get("ContentDate") or "") + str(ds.get("ContentTime") or "")[:6]),
    )


def _status(ds: Dataset) -> ReportStatus:
    """PS3.3 C.17.2: Completion Flag and Preliminary Flag; many systems leave final reports unverified."""
    final = ds.get("CompletionFlag", "COMPLETE") == "COMPLETE" and ds.get("PreliminaryFlag", "FINAL") == "FINAL"
    return ReportStatus.FINAL if final else ReportStatus.PRELIMINARY


def _texts(ds: Dataset) -> Iterator[tuple[str, str, bool]]:
    """Text and code values of the tree in reading order: part, text, whether it stands in an addendum."""
    waiting: list[tuple[Dataset, str, bool]] = [(ds, "", False)]
    seen = 0
    while waiting:
        item, part, addendum = waiting.pop()
        seen += 1
        if seen > _MAXIMUM_ITEMS:
            raise RefusedReport("more than 20000 content items")
        concept = _concept(item)
        if concept in _IMPRESSION:
            part = "impression"
        elif concept in _FINDINGS and not part:
            part = "findings"
        addendum = addendum or concept in _ADDENDUM
        kind = item.get("ValueType")
        if kind == "TEXT" and item.get("TextValue"):
            yield part, str(item.TextValue), addendum
        elif kind == "CODE" and part and item.get("ConceptCodeSequence"):
            yield part, str(item.ConceptCodeSequence[0].get("CodeMeaning", "")), addendum
        waiting += [(child, part, addendum) for child in reversed(list(item.get("ContentSequence") or []))]


def _concept(item: Dataset) -> tuple[str, str]:
    name = next(iter(item.get("ConceptNameCodeSequence") or []), None)
    if name is None:
        return "", ""
    return str(name.get("CodeValue", "")), str(name.get("CodingSchemeDesignator", ""))
