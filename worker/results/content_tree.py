"""The content tree of the report (PS3.16 TID 1500): answer, score, threshold, algorithm and references.

The decision stands in codes, in words and in the tracking identifiers: viewers show one or another.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from clearfilm.dicom.uids import result_uid
from clearfilm.triage import Decision
from worker.results.envelope import device_uid, model_name, serial_number
from worker.results.model import BuiltObject, Film, ModelIdentity, StudyConclusion
from worker.results.secondary_capture import patient_orientation
from worker.results.source import number, values
from worker.results.words import NOT_DIAGNOSTIC, narrative, person_name, plain, short

_ABNORMAL: Final = Code("408574004", "SCT", "Imaging result abnormal")
_ASSOCIATED_FINDING: Final = Code("246090004", "SCT", "Associated finding")
_CHEST: Final = Code("816094009", "SCT", "Chest")
# Advisory. A finding leaves the order as it is: escalation is a matter of the site.
_LOW_PRIORITY: Final = Code("1251527002", "SCT", "Low priority")
_NORMAL_PRIORITY: Final = Code("394848005", "SCT", "Normal priority")
_PRIORITY: Final = Code("260870009", "SCT", "Priority")
# PixelMed knows only the 2019 members of CID 100; more specific codes are legal but not among them.
_PROCEDURE: Final = Code("363679005", "SCT", "Imaging procedure")
_QUALITATIVE_EVALUATIONS: Final = Code("C0034375", "UMLS", "Qualitative Evaluations")
_SOURCE: Final = Code("260753009", "SCT", "Source")
_PIXELS: Final = Code("{pixels}", "UCUM", "Pixels")
_SIGNIFICANCES: Final = {
    Decision.NO_SIGNIFICANT_FINDING: Code("371928007", "SCT", "Not significant"),
    Decision.SIGNIFICANT_FINDING: Code("386134007", "SCT", "Significant"),
    Decision.NOT_ANALYSED: Code("386135008", "SCT", "Significance Undetermined"),
}
_MODALITIES: Final = {
    ComputedRadiographyImageStorage: codes.DCM.ComputedRadiography,
    DigitalXRayImageStorageForPresentation: codes.DCM.DigitalRadiography,
    DigitalXRayImageStorageForProcessing: codes.DCM.DigitalRadiography,
}
_ORIGIN: Final = "Preliminary output of an AI algorithm"
_CONTAINS: Final = RelationshipTypeValues.CONTAINS
_ACQUISITION: Final = RelationshipTypeValues.HAS_ACQ_CONTEXT


def content_tree(conclusion: StudyConclusion, captures: Mapping[str | None, BuiltObject]) -> ContainerContentItem:
    """Build the content tree, TID 1500.

    Parameters
    ----------
    conclusion : StudyConclusion
    captures : mapping of str to BuiltObject
        Secondary Captures by the digest of the film that they show.

    Returns
    -------
    highdicom.sr.ContainerContentItem
        The root: title, observer, image library, a measurement group for each film, the answer.
    """
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_person_context=_person(conclusion), observer_device_context=_observer(conclusion)
        ),
        procedure_reported=_PROCEDURE,
        imaging_measurements=[_group(conclusion, film, captures.get(film.digest)) for film in conclusion.films],
        title=codes.DCM.ImagingMeasurementReport,
    )
    root: Any = report[0]
    entries = _library(conclusion.films)
    if entries:
        group = _container(codes.DCM.ImageLibraryGroup, entries)
        # TID 1500: the image library stands before the measurements, which are last so far.
        root.ContentSequence.insert(len(root.ContentSequence) - 1, _container(codes.DCM.ImageLibrary, [group]))
    root.ContentSequence.append(_container(_QUALITATIVE_EVALUATIONS, _evaluations(conclusion)))
    _separate(root)
    return root


def _observer(conclusion: StudyConclusion) -> ObserverContext:
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=device_uid(conclusion),
            name=short(conclusion.node.ae_title),
            manufacturer_name=short(conclusion.node.manufacturer),
            model_name=model_name(conclusion),
            serial_number=serial_number(conclusion),
        ),
    )


def _person(conclusion: StudyConclusion) -> ObserverContext | None:
    """Who corrected the answer, TID 1003. The document stays unverified: this is a word about triage, no report."""
    if conclusion.correction is None:
        return None
    name = f"{person_name(conclusion) or 'Radiologist'}^"  # one component: the caret says that no other is missing
    return ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=PersonObserverIdentifyingAttributes(name=name),
    )


def _group(
    conclusion: StudyConclusion, film: Film, capture: BuiltObject | None
) -> MeasurementsAndQualitativeEvaluations:
    """One film, TID 1501. A Finding is there for positives only: lists show it without its score."""
    tracking = result_uid("tracking", [film.digest], conclusion.bundle_digest, "", conclusion.revision)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=tracking, identifier=_label(conclusion, film)),
        finding_type=_ABNORMAL if film.above and conclusion.decision is Decision.SIGNIFICANT_FINDING else None,
        finding_sites=[FindingSite(_CHEST)],
        algorithm_id=_algorithm(conclusion.model) if conclusion.model else None,
        measurements=[_probability(film.score)] if film.score is not None else None,
        source_images=[SourceImageForMeasurementGroup(film.source.SOPClassUID, film.source.SOPInstanceUID)],
    )
    if capture is not None:
        group[0].ContentSequence.append(
            ImageContentItem(
                codes.DCM.IllustrationOfFinding,
                capture.sop_class_uid,
                capture.sop_instance_uid,
                relationship_type=_CONTAINS,
            )
        )
    return group


def _label(conclusion: StudyConclusion, film: Film) -> str:
    """Tracking Identifier, which many viewers show alone: never more reassuring than the study's decision."""
    if not film.analysed:
        return Decision.NOT_ANALYSED.series_description
    if conclusion.correction is not None:
        return f"AI CXR triage: corrected by a radiologist: {conclusion.decision.words.upper()}"
    if film.above:
        return Decision.SIGNIFICANT_FINDING.series_description
    if conclusion.decision is Decision.NO_SIGNIFICANT_FINDING:
        return conclusion.decision.series_description
    return "AI CXR triage: this film below the operating point"


def _algorithm(model: ModelIdentity) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=short(model.name),
        version=short(model.version),
        family=codes.DCM.ArtificialIntelligence,
        parameters=[
            f"operating_threshold={model.operating_threshold:g}",
            f"evidence_threshold={model.evidence_threshold:g}",
            plain(f"preprocessing={model.preprocessing_id}"),
            plain(f"bundle_sha256={model.digest}"),
        ],
    )


def _probability(score: float) -> Measurement:
    measurement = Measurement(name=codes.DCM.Probability, value=round(score, 6), unit=codes.UCUM.NoUnits)
    # Says of what: the sense of the number does not turn with the outcome.
    measurement[0].ContentSequence = ContentSequence(
        [CodeContentItem(_ASSOCIATED_FINDING, _ABNORMAL, RelationshipTypeValues.HAS_CONCEPT_MOD)]
    )
    return measurement


def _library(films: Sequence[Film]) -> list[ImageContentItem]:
    try:
        return [entry for film in films for entry in _library_entries(film)]
    except ValueError:
        # The library describes the films only: an odd value in one of them must not cost the answer.
        return []


def _library_entries(film: Film) -> list[ImageContentItem]:
    """The film's entry in the image library, TID 1601; none if a mandatory descriptor is unknown."""
    source = film.source
    modality, orientation = _MODALITIES.get(source.SOPClassUID), patient_orientation(source)
    rows, columns = number(source, "Rows"), number(source, "Columns")
    if modality is None or not orientation or rows is None or columns is None:
        return []
    entry = ImageContentItem(_SOURCE, source.SOPClassUID, source.SOPInstanceUID, relationship_type=_CONTAINS)
    # TID 1602 and, for projection radiography, TID 1603.
    entry.ContentSequence = ContentSequence(
        [
            CodeContentItem(codes.DCM.Modality, modality, _ACQUISITION),
            NumContentItem(codes.DCM.PixelDataRows, rows, _PIXELS, relationship_type=_ACQUISITION),
            NumContentItem(codes.DCM.PixelDataColumns, columns, _PIXELS, relationship_type=_ACQUISITION),
            TextContentItem(codes.DCM.PatientOrientationRow, orientation[0], _ACQUISITION),
            TextContentItem(codes.DCM.PatientOrientationColumn, orientation[1], _ACQUISITION),
            *_spacings(source),
        ]
    )
    return [entry]


def _spacings(source: Dataset) -> list[NumContentItem]:
    spacings = [float(text) for text in values(source, "ImagerPixelSpacing")]
    if len(spacings) != 2 or not all(0 < spacing < math.inf for spacing in spacings):
        return []
    vertical, horizontal = spacings
    millimetre = codes.UCUM.Millimeter
    return [
        NumContentItem(codes.DCM.HorizontalPixelSpacing, horizontal, millimetre, relationship_type=_ACQUISITION),
        NumContentItem(codes.DCM.VerticalPixelSpacing, vertical, millimetre, relationship_type=_ACQUISITION),
    ]


def _evaluations(conclusion: StudyConclusion) -> list[ContentItem]:
    """The answer itself, TID 1500 rows 12 to 14."""
    decision = conclusion.decision
    items: list[ContentItem] = [
        CodeContentItem(codes.DCM.LevelOfSignificance, _SIGNIFICANCES[decision], _CONTAINS),
        CodeContentItem(codes.DCM.CADProcessingAndFindingsSummary, _summary(conclusion), _CONTAINS),
    ]
    if decision is not Decision.NOT_ANALYSED:
        is_later = conclusion.suggests_later and decision is Decision.NO_SIGNIFICANT_FINDING
        priority = _LOW_PRIORITY if is_later else _NORMAL_PRIORITY
        items.append(CodeContentItem(_PRIORITY, priority, _CONTAINS))
    note = f" Model: {conclusion.model.note}." if conclusion.model else ""
    origin = "Output of an AI algorithm, corrected by a person" if conclusion.correction else _ORIGIN
    comment = f"{origin}. {NOT_DIAGNOSTIC}; every study is still to be read by a radiologist.{note}"
    items.append(TextContentItem(codes.DCM.NarrativeSummary, narrative(conclusion), _CONTAINS))
    items.append(TextContentItem(codes.DCM.Comment, plain(comment), _CONTAINS))
    return items


def _summary(conclusion: StudyConclusion) -> Code:
    """CAD Processing and Findings Summary, CID 6047."""
    analysed = [film.analysed for film in conclusion.films]
    findings = any(film.above for film in conclusion.films)
    if not any(analysed):
        return codes.DCM.NoAlgorithmsSucceededWithoutFindings
    if all(analysed):
        return (
            codes.DCM.AllAlgorithmsSucceededWithFindings
            if findings
            else codes.DCM.AllAlgorithmsSucceededWithoutFindings
        )
    return (
        codes.DCM.NotAllAlgorithmsSucceededWithFindings
        if findings
        else codes.DCM.NotAllAlgorithmsSucceededWithoutFindings
    )


def _container(name: Code, items: Sequence[ContentItem]) -> ContainerContentItem:
    container = ContainerContentItem(name=name, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(items)
    return container


def _separate(item: Any) -> None:
    """PS3.3 C.18.8: the items of a container are a list here, not prose; highdicom says otherwise."""
    if item.ValueType == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    for child in item.get("ContentSequence", []):
        _separate(child)
