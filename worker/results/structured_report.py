"""Structured report: the document around the content tree, in three SOP classes.

A destination gets the first of them that it takes.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
)

from clearfilm.dicom.uids import result_uid
from worker.results.content_tree import content_tree
from worker.results.envelope import (
    common_attributes,
    encode,
    encode_dataset,
    reference,
)
from worker.results.model import BuiltObject, Kind, Predecessor, StudyConclusion
from worker.results.source import copied, values

SERIES_NUMBER: Final = 900
# In the order in which a destination is offered them.
SOP_CLASSES: Final = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)


def build_reports(conclusion: StudyConclusion, captures: Sequence[BuiltObject]) -> tuple[BuiltObject, ...]:
    """Build the report in every SOP class that a destination may ask for.

    Parameters
    ----------
    conclusion : StudyConclusion
    captures : sequence of BuiltObject
        The Secondary Captures of the same conclusion, which the report refers to.

    Returns
    -------
    tuple of BuiltObject
        Comprehensive 3D, Comprehensive and Enhanced SR with the same content; alternatives, of which one
        is sent. The same conclusion gives the same bytes.
    """
    by_film = {capture.source_digest: capture for capture in captures}
    root = content_tree(conclusion, by_film)
    children = root["ContentSequence"]
    last_element = encode_dataset(Dataset({children.tag: children}))
    ds = _document(conclusion, captures)
    ds.update({tag: element for tag, element in root.items() if tag != children.tag})
    return tuple(_in_sop_class(ds, conclusion, iod, last_element) for iod in SOP_CLASSES)


def _in_sop_class(ds: Dataset, conclusion: StudyConclusion, iod: str, last_element: bytes) -> BuiltObject:
    names = (conclusion.digests, conclusion.bundle_digest, iod, conclusion.revision)
    ds.SOPClassUID = iod
    ds.SOPInstanceUID = result_uid("instance", *names)
    ds.SeriesInstanceUID = result_uid("series", *names)
    if conclusion.predecessors:
        ds.PredecessorDocumentsSequence = _predecessors(conclusion.predecessors, iod)
    return BuiltObject(
        kind=Kind.STRUCTURED_REPORT,
        sop_class_uid=iod,
        sop_instance_uid=ds.SOPInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content=encode(ds, conclusion.films[0].source, [last_element]),
    )


def _document(conclusion: StudyConclusion, captures: Sequence[BuiltObject]) -> Dataset:
    """Everything around the content tree (PS3.3 C.17.1, C.17.2)."""
    ds = common_attributes(conclusion, conclusion.films[0])
    ds.Modality = "SR"
    ds.SeriesNumber = SERIES_NUMBER
    ds.SeriesDescription = conclusion.decision.series_description
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.InstanceNumber = 1
    ds.CompletionFlag = "COMPLETE"
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.VerificationFlag = "UNVERIFIED"  # PS3.3 C.17.2: only a person verifies
    ds.PerformedProcedureCodeSequence = []
    ds.CurrentRequestedProcedureEvidenceSequence = [_evidence(conclusion, captures)]
    requests = _requests(conclusion.films[0].source)
    if requests:
        ds.ReferencedRequestSequence = requests
    return ds


def _evidence(conclusion: StudyConclusion, captures: Sequence[BuiltObject]) -> Dataset:
    series: dict[str, list[Dataset]] = {}
    for film in conclusion.films:
        # A film without Series Instance UID cannot be named here; the content tree still refers to it.
        for uid in values(film.source, "SeriesInstanceUID"):
            series.setdefault(uid, []).append(reference(film.source.SOPClassUID, film.source.SOPInstanceUID))
    for capture in captures:
        instance = reference(capture.sop_class_uid, capture.sop_instance_uid)
        series.setdefault(capture.series_instance_uid, []).append(instance)
    return _study_references(conclusion.films[0].source.StudyInstanceUID, series)


def _predecessors(predecessors: Iterable[Predecessor], iod: str) -> list[Dataset]:
    """The earlier report in the same SOP class; it is the one that this destination has."""
    everything = tuple(predecessors)
    chosen = [earlier for earlier in everything if earlier.sop_class_uid == iod] or everything
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for earlier in chosen:
        series = studies.setdefault(earlier.study_instance_uid, {})
        instance = reference(earlier.sop_class_uid, earlier.sop_instance_uid)
        series.setdefault(earlier.series_instance_uid, []).append(instance)
    return [_study_references(study, series) for study, series in studies.items()]


def _study_references(study_instance_uid: str, series: dict[str, list[Dataset]]) -> Dataset:
    """Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1)."""
    item = Dataset()
    item.StudyInstanceUID = study_instance_uid
    item.ReferencedSeriesSequence = []
    for uid, instances in series.items():
        entry = Dataset()
        entry.SeriesInstanceUID = uid
        entry.ReferencedSOPSequence = instances
        item.ReferencedSeriesSequence.append(entry)
    return item


def _requests(source: Dataset) -> list[Dataset]:
    """Order numbers for the RIS (PS3.3 C.17.2, Referenced Request Sequence): one item for each request."""
    attributes = copied(source, ["RequestAttributesSequence"]).get("RequestAttributesSequence", [])
    accession = copied(source, ["AccessionNumber"]).get_item("AccessionNumber")
    if not attributes and (accession is None or not accession.value.strip(b" \0")):
        return []
    return [_request(source, item) for item in attributes or [Dataset()]]


def _request(source: Dataset, attributes: Dataset) -> Dataset:
    item = copied(
        source,
        [
            "StudyInstanceUID",
            "AccessionNumber",
            "IssuerOfAccessionNumberSequence",
            "PlacerOrderNumberImagingServiceRequest",
            "FillerOrderNumberImagingServiceRequest",
        ],
    )
    item.update(
        copied(
            attributes,
            [
                "AccessionNumber",
                "IssuerOfAccessionNumberSequence",
                "RequestedProcedureID",
                "RequestedProcedureDescription",
                "RequestedProcedureCodeSequence",
            ],
        )
    )
    for keyword in (
        "AccessionNumber",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
        "RequestedProcedureID",
        "RequestedProcedureDescription",
    ):
        if keyword not in item:
            setattr(item, keyword, "")
    for keyword in ("ReferencedStudySequence", "RequestedProcedureCodeSequence"):
        if keyword not in item:
            setattr(item, keyword, [])
    return item
