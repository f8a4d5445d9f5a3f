"""Structured reports, read back by highdicom."""

import io
from dataclasses import replace
from typing import Any

import pytest
from highdicom.sr import srread
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from clearfilm.triage import Decision
from tests.result_factories import (
    conclusion,
    dx_header,
    film,
    film_above,
    film_not_analysed,
    header,
    opened,
)
from worker.results.model import Predecessor, StudyConclusion
from worker.results.secondary_capture import build_secondary_captures
from worker.results.structured_report import build_reports

NEGATIVE, POSITIVE, NOT_ANALYSED = (
    conclusion(film(), decision=Decision.NO_SIGNIFICANT_FINDING),
    conclusion(film_above(), decision=Decision.SIGNIFICANT_FINDING),
    conclusion(film_not_analysed(), decision=Decision.NOT_ANALYSED, model=None),
)


def report_of(study: StudyConclusion) -> Dataset:
    return opened(build_reports(study, build_secondary_captures(study))[0])


def items(item: Dataset) -> list[Dataset]:
    """The content items below an item, depth first."""
    children = item.get("ContentSequence", [])
    return [found for child in children for found in (child, *items(child))]


def named(report: Dataset, code: str) -> list[Dataset]:
    return [item for item in items(report) if item.ConceptNameCodeSequence[0].CodeValue == code]


def coded(report: Dataset, code: str) -> list[str]:
    return [item.ConceptCodeSequence[0].CodeValue for item in named(report, code)]


def texts(report: Dataset, code: str) -> list[str]:
    return [item.TextValue for item in named(report, code)]


@pytest.mark.parametrize(
    ("study", "words", "significance", "summary", "priority", "findings", "scores"),
    [
        (NEGATIVE, "NO SIGNIFICANT FINDING", "371928007", "111241", ["1251527002"], [], [0.07]),
        (POSITIVE, "SIGNIFICANT FINDING", "386134007", "111242", ["394848005"], ["408574004"], [0.87]),
        (NOT_ANALYSED, "NOT ANALYSED", "386135008", "111245", [], [], []),
    ],
)
def test_each_answer_has_its_codes(
    study: StudyConclusion,
    words: str,
    significance: str,
    summary: str,
    priority: list[str],
    findings: list[str],
    scores: list[float],
) -> None:
    report = report_of(study)
    assert report.SeriesDescription == f"AI CXR triage: {words}"
    assert texts(report, "112039") == [f"AI CXR triage: {words}"]
    assert coded(report, "121403") == [significance]
    assert coded(report, "111017") == [summary]
    assert coded(report, "260870009") == priority
    assert coded(report, "121071") == findings
    assert [item.MeasuredValueSequence[0].NumericValue for item in named(report, "122157")] == scores
    assert coded(report, "246090004") == ["408574004"] * len(scores), "probability of what"


@pytest.mark.parametrize("study", [NEGATIVE, POSITIVE, NOT_ANALYSED])
def test_report_is_a_preliminary_list(study: StudyConclusion) -> None:
    report = report_of(study)
    assert (report.Modality, report.SeriesNumber) == ("SR", 900)
    assert (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag) == (
        "COMPLETE",
        "PRELIMINARY",
        "UNVERIFIED",
    )
    containers = [item for item in [report, *items(report)] if item.ValueType == "CONTAINER"]
    assert {item.ContinuityOfContent for item in containers} == {"SEPARATE"}


@pytest.mark.parametrize("study", [NEGATIVE, POSITIVE, NOT_ANALYSED])
def test_report_says_that_it_is_not_for_diagnosis_and_never_says_normal(study: StudyConclusion) -> None:
    report = report_of(study)
    (comment,) = texts(report, "121106")
    assert "Not for diagnostic use" in comment
    assert ("demonstration, NIH films" in comment) == (study.model is not None)
    written = [item.TextValue for item in items(report) if item.ValueType == "TEXT"]
    assert not any("normal" in text.lower() for text in written)
    assert all(text.isascii() for text in written)


def test_narrative_gives_scores_and_reasons_film_by_film() -> None:
    films = (film_above(), film_not_analysed())
    (narrative,) = texts(report_of(conclusion(*films, decision=Decision.SIGNIFICANT_FINDING)), "111412")
    assert narrative == (
        "AI triage: significant finding: reason in plain words. "
        "Film 1 of 2: score 0.87 (operating point 0.32). Film 2 of 2: not analysed: lateral view."
    )


def test_three_sop_classes_carry_one_content_under_their_own_uids() -> None:
    built = build_reports(POSITIVE, build_secondary_captures(POSITIVE))
    assert [each.sop_class_uid for each in built] == [
        Comprehensive3DSRStorage,
        ComprehensiveSRStorage,
        EnhancedSRStorage,
    ]
    reports = [opened(each) for each in built]
    own = {"SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"}
    for keyword in own:
        assert len({report[keyword].value for report in reports}) == 3
    for report, each in zip(reports, built, strict=True):
        assert report.file_meta.MediaStorageSOPClassUID == report.SOPClassUID == each.sop_class_uid
        assert report.file_meta.MediaStorageSOPInstanceUID == report.SOPInstanceUID == each.sop_instance_uid
        for keyword in own:
            del report[keyword]
    assert reports[0] == reports[1] == reports[2]


@pytest.mark.parametrize("study", [NEGATIVE, POSITIVE, NOT_ANALYSED])
def test_highdicom_reads_the_groups_back(study: StudyConclusion) -> None:
    for built in build_reports(study, build_secondary_captures(study)):
        (group,) = srread(io.BytesIO(built.content)).content.get_image_measurement_groups()
        assert group.tracking_identifier == study.decision.series_description
        assert group.source_images[0].referenced_sop_instance_uid == "2.25.111"


def test_report_refers_to_films_and_captures() -> None:
    films = (film_above(), film(dx_header(SeriesInstanceUID="2.25.334"), "b" * 64), film_not_analysed())
    study = conclusion(*films, decision=Decision.SIGNIFICANT_FINDING)
    captures = build_secondary_captures(study)
    report = opened(build_reports(study, captures)[0])
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    named_there = {
        (series.SeriesInstanceUID, instance.ReferencedSOPInstanceUID)
        for series in evidence.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert evidence.StudyInstanceUID == "2.25.222"
    assert named_there == {("2.25.333", "2.25.111"), ("2.25.334", "2.25.112")} | {
        (capture.series_instance_uid, capture.sop_instance_uid) for capture in captures
    }
    illustrations = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in named(report, "125201")]
    assert illustrations == [capture.sop_instance_uid for capture in captures]


@pytest.mark.parametrize("decision", [Decision.SIGNIFICANT_FINDING, Decision.NOT_ANALYSED])
def test_no_film_of_another_decision_is_labelled_without_finding(decision: Decision) -> None:
    films = (film(), film_not_analysed(), *([film_above(digest="b" * 64)] if decision != "not_analysed" else []))
    labels = texts(report_of(conclusion(*films, decision=decision)), "112039")
    assert labels[:2] == [
        "AI CXR triage: this film below the operating point",
        "AI CXR triage: NOT ANALYSED",
    ]
    assert not any("NO SIGNIFICANT" in label for label in labels)


def test_low_priority_is_suggested_only_where_the_policy_says_so_and_never_with_a_finding() -> None:
    assert coded(report_of(NEGATIVE), "260870009") == ["1251527002"]
    assert coded(report_of(replace(NEGATIVE, suggests_later=False)), "260870009") == ["394848005"]
    assert coded(report_of(replace(POSITIVE, suggests_later=True)), "260870009") == ["394848005"]
    assert coded(report_of(replace(NOT_ANALYSED, suggests_later=True)), "260870009") == []


def test_partly_analysed_studies_say_so() -> None:
    both = (film(), film_not_analysed())
    assert coded(report_of(conclusion(*both, decision=Decision.NOT_ANALYSED)), "111017") == ["111243"]
    both = (film_above(), film_not_analysed())
    assert coded(report_of(conclusion(*both, decision=Decision.SIGNIFICANT_FINDING)), "111017") == ["111244"]


def test_order_numbers_stand_in_the_referenced_request() -> None:
    source = header(PlacerOrderNumberImagingServiceRequest="PLC1", FillerOrderNumberImagingServiceRequest="FIL1")
    (request,) = report_of(conclusion(film(source), decision=NEGATIVE.decision)).ReferencedRequestSequence
    assert (request.AccessionNumber, request.RequestedProcedureID) == ("ACC0001", "RP1")
    assert request.PlacerOrderNumberImagingServiceRequest == "PLC1"
    assert request.FillerOrderNumberImagingServiceRequest == "FIL1"


def test_study_without_order_has_no_referenced_request() -> None:
    source = header(AccessionNumber="", RequestAttributesSequence=None)
    assert "ReferencedRequestSequence" not in report_of(conclusion(film(source), decision=NEGATIVE.decision))


def test_next_revision_names_the_earlier_report_of_the_same_sop_class() -> None:
    first = build_reports(NEGATIVE, build_secondary_captures(NEGATIVE))
    earlier = tuple(
        Predecessor(each.sop_class_uid, each.sop_instance_uid, each.series_instance_uid, "2.25.222") for each in first
    )
    study = conclusion(film(), decision=NEGATIVE.decision, revision=2, predecessors=earlier)
    for before, built in zip(first, build_reports(study, build_secondary_captures(study)), strict=True):
        assert built.sop_instance_uid != before.sop_instance_uid
        (document,) = opened(built).PredecessorDocumentsSequence
        (series,) = document.ReferencedSeriesSequence
        (instance,) = series.ReferencedSOPSequence
        assert (instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID) == (
            before.sop_class_uid,
            before.sop_instance_uid,
        )


def test_first_revision_names_no_predecessor() -> None:
    assert "PredecessorDocumentsSequence" not in report_of(POSITIVE)


def test_same_conclusion_gives_the_same_bytes() -> None:
    captures = build_secondary_captures(POSITIVE)
    assert build_reports(POSITIVE, captures) == build_reports(POSITIVE, captures)


@pytest.mark.parametrize(
    ("changes", "entries", "spacings"),
    [
        ({}, 1, 1),
        ({"ImagerPixelSpacing": None}, 1, 0),
        ({"ImagerPixelSpacing": b"1e400\\1e400"}, 1, 0),
        ({"ImagerPixelSpacing": b"nan\\0.1"}, 1, 0),
        ({"ImagerPixelSpacing": b"0\\0.1"}, 1, 0),
        ({"ImagerPixelSpacing": b"0.1\\-0.1"}, 1, 0),
        ({"ImagerPixelSpacing": b"1e300\\1e-300"}, 1, 1),
        ({"ImagerPixelSpacing": b"0.12345678901234\\1.2345678901e-5"}, 1, 1),
        ({"PatientOrientation": None}, 1, 1),
        ({"PatientOrientation": None, "ViewPosition": None}, 0, 0),
        ({"Rows": None}, 0, 0),
    ],
)
def test_image_library_holds_what_is_known(changes: dict[str, Any], entries: int, spacings: int) -> None:
    report = report_of(conclusion(film(header(**changes)), decision=NEGATIVE.decision))
    assert len(named(report, "260753009")) == entries
    assert len(named(report, "111026")) == spacings
