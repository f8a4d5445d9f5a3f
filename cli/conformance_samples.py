"""What the results contain, read off results that the node's own builders have just made of two invented films."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pydicom
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from clearfilm.triage import Decision
from worker.results.model import BuiltObject, Film, ModelIdentity, NodeIdentity, StudyConclusion
from worker.results.secondary_capture import build_secondary_captures
from worker.results.structured_report import build_reports

_COPIED_TEXT = {
    "IssuerOfPatientID": "ISSUER",
    "PatientName": "Doe^Jane",
    "PatientID": "P-0001",
    "PatientBirthDate": "19600101",
    "PatientSex": "F",
    "PatientAge": "065Y",
    "StudyDate": "20260102",
    "StudyTime": "101500",
    "StudyID": "S1",
    "StudyDescription": "Chest PA",
    "AccessionNumber": "ACC0001",
    "ReferringPhysicianName": "Roe^Richard",
    "SpecificCharacterSet": "ISO_IR 100",
    "Manufacturer": "Acme",
    "LossyImageCompression": "01",
    "LossyImageCompressionMethod": "ISO_10918_1",
    "LossyImageCompressionRatio": "12.5",
}


@dataclass(frozen=True)
class Samples:
    """Results of a film with a full header, and of one with an almost empty header."""

    full_source: Dataset
    captures: tuple[Dataset, Dataset]  # full, poor
    reports: tuple[Dataset, Dataset]  # of the same two films
    answers: dict[str, Dataset]  # a report for each kind of answer


@dataclass(frozen=True)
class Attribute:
    """One element of a result."""

    tag: str
    name: str
    vr: str
    presence: str
    value: str


@dataclass(frozen=True, order=True)
class CodeUse:
    """One code that a result carries, and where."""

    place: str
    value: str
    scheme: str
    meaning: str


def build_samples() -> Samples:
    """Have the node's builders make results; the same on every machine."""
    full, poor = _full_source(ComputedRadiographyImageStorage), _poor_source()
    above, below = _film(full, "a", 0.9), _film(poor, "b", 0.1)
    unread = Film(_full_source(DigitalXRayImageStorageForPresentation), "c" * 64, reason="sample")
    rich = _conclusion([above], Decision.SIGNIFICANT_FINDING)
    # Other values wherever they may differ: what is equal all the same is taken for a constant.
    plain = _conclusion([_film(poor, "d", 0.1), below], Decision.NO_SIGNIFICANT_FINDING, model="2", hour=11)
    answers = {
        Decision.NO_SIGNIFICANT_FINDING.words: plain,
        Decision.SIGNIFICANT_FINDING.words: rich,
        f"{Decision.SIGNIFICANT_FINDING.words}, a film not analysed": _conclusion(
            [above, unread], Decision.SIGNIFICANT_FINDING
        ),
        Decision.NOT_ANALYSED.words: _conclusion([unread], Decision.NOT_ANALYSED),
        f"{Decision.NOT_ANALYSED.words}, other films below": _conclusion([below, unread], Decision.NOT_ANALYSED),
    }
    return Samples(
        full_source=full,
        captures=(_capture(rich), _capture(plain)),
        reports=(_report(rich), _report(plain)),
        answers={name: _report(conclusion) for name, conclusion in answers.items()},
    )


def attributes(full_source: Dataset, full: Dataset, poor: Dataset) -> list[Attribute]:
    """Elements of a result of the film with the full header, told apart by where their values come from."""
    return [
        Attribute(
            tag=f"({element.tag.group:04X},{element.tag.element:04X})",
            name=element.name,
            vr=element.VR,
            presence="always" if element.tag in poor else "if in the film",
            value=_origin(element, full_source, poor),
        )
        for element in full
    ]


def code_uses(ds: Dataset, place: str = "") -> Iterator[CodeUse]:
    """All coded values of a data set, at any depth."""
    for element in ds:
        if element.VR != "SQ":
            continue
        for item in element.value:
            if "CodeValue" in item:
                yield CodeUse(_place(element, ds, place), item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
            yield from code_uses(item, element.name)


def content_lines(item: Dataset, depth: int = 0) -> Iterator[str]:
    """The content tree as indented lines: relationship, value type, concept name, coded value."""
    words = [str(item.get("RelationshipType", "")), item.ValueType, _code(item.get("ConceptNameCodeSequence"))]
    for template in item.get("ContentTemplateSequence", []):
        words.append(f"[TID {template.TemplateIdentifier}]")
    coded = _code(item.get("ConceptCodeSequence"))
    if coded:
        words.append(f"= {coded}")
    for measured in item.get("MeasuredValueSequence", []):
        words.append(f"in {_code(measured.get('MeasurementUnitsCodeSequence'))}")
    yield "  " * depth + " ".join(word for word in words if word)
    for child in item.get("ContentSequence", []):
        yield from content_lines(child, depth + 1)


def coded_value(item: Dataset, concept: str) -> str:
    """Meaning of the first CODE item of this concept in a content tree; empty if there is none."""
    for child in item.get("ContentSequence", []):
        name = child.get("ConceptNameCodeSequence")
        if name and name[0].CodeMeaning == concept and "ConceptCodeSequence" in child:
            return str(child.ConceptCodeSequence[0].CodeMeaning)
        found = coded_value(child, concept)
        if found:
            return found
    return ""


def _code(sequence: object) -> str:
    if not isinstance(sequence, pydicom.Sequence) or not sequence:
        return ""
    code = sequence[0]
    return f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'


def _place(element: DataElement, ds: Dataset, parent: str) -> str:
    if element.keyword == "ConceptNameCodeSequence":
        return f"concept name of a {ds.ValueType} item"
    if element.keyword == "ConceptCodeSequence":
        return f"value of {ds.ConceptNameCodeSequence[0].CodeMeaning}"
    if element.keyword == "MeasurementUnitsCodeSequence":
        return "unit of a measured value"
    return f"{parent}, {element.name}" if parent else element.name


def _origin(element: DataElement, source: Dataset, poor: Dataset) -> str:
    if element.tag in source and element.value == source[element.tag].value:
        return "from the film"
    if element.tag not in poor or element.value != poor[element.tag].value or element.VR == "OB":
        return "generated"
    if element.VR == "SQ":
        return "fixed, see code set usage" if element.value else "empty"
    values = element.value if element.VM > 1 else [element.value]
    return "`" + "\\".join(map(str, values)) + "`"


def _full_source(sop_class_uid: str) -> Dataset:
    ds = _poor_source()
    ds.SOPClassUID = sop_class_uid
    for keyword, value in _COPIED_TEXT.items():
        setattr(ds, keyword, value)
    ds.PatientOrientation = ["L", "F"]
    ds.ImagerPixelSpacing = [0.15, 0.15]
    ds.Rows, ds.Columns = 2048, 2500
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    ds.RequestAttributesSequence = [request]
    return _as_received(ds)


def _poor_source() -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = "2.25.1", "2.25.2", "2.25.3"
    return _as_received(ds)


def _as_received(ds: Dataset) -> Dataset:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return pydicom.dcmread(io.BytesIO(buffer.getvalue()))


def _film(source: Dataset, letter: str, score: float) -> Film:
    return Film(
        source,
        letter * 64,
        score=score,
        evidence=np.zeros((7, 7), np.float32),
        display=np.full((800 + ord(letter), 700 + ord(letter)), 128, np.uint8),
        above=score >= 0.5,
    )


def _conclusion(films: list[Film], decision: Decision, *, model: str = "1", hour: int = 10) -> StudyConclusion:
    identity = ModelIdentity(
        name=f"Model {model}",
        version=model,
        digest=model * 64,
        operating_threshold=0.5,
        evidence_threshold=1.0,
        note="sample",
        preprocessing_id="sample",
    )
    node = NodeIdentity(f"NODE{model}", f"Maker {model}", None, model)
    concluded_at = datetime(2026, 1, int(model) + 1, hour, tzinfo=UTC)
    is_clear = decision is Decision.NO_SIGNIFICANT_FINDING
    return StudyConclusion(tuple(films), decision, "sample", identity, 1, concluded_at, node, suggests_later=is_clear)


def _capture(conclusion: StudyConclusion) -> Dataset:
    return _opened(build_secondary_captures(conclusion)[-1])


def _report(conclusion: StudyConclusion) -> Dataset:
    return _opened(build_reports(conclusion, build_secondary_captures(conclusion))[0])


def _opened(built: BuiltObject) -> Dataset:
    return pydicom.dcmread(io.BytesIO(built.content))
