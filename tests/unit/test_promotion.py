"""Each promotion gate, both ways."""

from dataclasses import replace
from typing import Any

import pytest

from clearfilm.evaluation import Summary
from clearfilm.model_settings import Promotion
from clearfilm.promotion import Evidence, ShadowStatistics, fingerprint, forecast_below, gates
from tests.report_factories import report

OWN, ACTIVE, OTHER = "a" * 64, "b" * 64, "c" * 64
LIMITS = Promotion()
SHORTCUTS = {"metadata": 0.7, "thumbnail": 0.6, "lungs_blacked_out": 0.6}
SHADOW = ShadowStatistics(days=15, studies=600, below=140, reported=580, abnormal=290, missed=1, agreeing=550)


def summary(digest: str = OWN, against: str | None = ACTIVE, **changes: Any) -> Summary:
    return Summary.model_validate(report(digest, against, **changes))


def evidence(**changes: Any) -> Evidence:
    sound = Evidence(
        digest=OWN,
        fault=None,
        has_operating_point=True,
        summary=summary(),
        evaluation_digest="e" * 64,
        active_digest=ACTIVE,
        shadow=SHADOW,
    )
    return replace(sound, **changes)


def part(name: str, **changes: Any) -> Summary:
    """The evaluation with one of its parts changed."""
    whole = report(OWN, ACTIVE)
    return summary(**{name: {**whole[name], **changes}})


def failed(found: Evidence, limits: Promotion = LIMITS) -> list[str]:
    return [gate.name for gate in gates(found, limits) if not gate.passed]


def test_sound_evidence_passes_every_gate() -> None:
    assert failed(evidence()) == []


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (evidence(fault="weights.safetensors does not match the manifest"), ["bundle"]),
        (evidence(has_operating_point=False), ["operating-point"]),
        (evidence(summary=part("identity", held_back=False)), ["held-back"]),
        (evidence(summary=summary(demonstration=True)), ["films"]),
        (evidence(summary=part("operating_point", sensitivity_interval=(0.989, 0.998))), ["sensitivity"]),
        (evidence(summary=summary(ece=0.031)), ["calibration-error"]),
        (evidence(summary=summary(calibration_slope=0.79)), ["calibration-slope"]),
        (evidence(summary=summary(calibration_slope=1.26)), ["calibration-slope"]),
        (evidence(summary=summary(shortcuts={**SHORTCUTS, "metadata": 0.76})), ["shortcuts"]),
        (evidence(summary=summary(shortcuts={})), ["shortcuts"]),
        (evidence(summary=summary(shortcuts={"metadata": 0.6, "thumbnail": 0.6})), ["shortcuts"]),
        (evidence(summary=part("sanity", passed=False)), ["maps"]),
        (evidence(summary=summary(sanity=None)), ["maps"]),
        (evidence(summary=part("comparison", auc_interval=(-0.01, 0.02))), ["auc"]),
        (evidence(summary=part("comparison", auc_interval_by_patient=(-0.02, 0.03))), ["auc"]),
        (evidence(summary=part("comparison", specificity_interval=(-0.03, 0.02))), ["specificity"]),
        (
            evidence(summary=part("comparison", specificity_difference=None, specificity_interval=None)),
            ["specificity"],
        ),
        (evidence(summary=part("comparison", new_critical_misses=["f" * 64])), ["critical-misses"]),
        (evidence(summary=part("comparison", critical=0)), ["critical-misses"]),
        (evidence(summary=part("comparison", largest_group_loss=0.021)), ["groups"]),
        (evidence(summary=part("comparison", groups=0)), ["groups"]),
        (evidence(shadow=replace(SHADOW, days=13.9)), ["shadow-days"]),
        (evidence(shadow=replace(SHADOW, studies=499)), ["shadow-studies"]),
        (evidence(shadow=replace(SHADOW, abnormal=149, below=220)), ["shadow-abnormal"]),
        (evidence(shadow=replace(SHADOW, below=400)), ["shadow-share"]),
        (evidence(shadow=replace(SHADOW, below=60)), ["shadow-share"]),
        (evidence(shadow=None), ["shadow-days", "shadow-studies", "shadow-abnormal", "shadow-share"]),
    ],
)
def test_one_fault_fails_its_gate_alone(found: Evidence, names: list[str]) -> None:
    assert failed(found) == names


AGAINST_ACTIVE = ["same-films", "auc", "specificity", "critical-misses", "groups"]


@pytest.mark.parametrize("against", [None, OTHER])
def test_comparison_with_another_bundle_than_the_active_one_does_not_count(against: str | None) -> None:
    assert failed(evidence(summary=summary(against=against))) == AGAINST_ACTIVE


def test_without_an_active_bundle_there_is_nothing_to_compare_with() -> None:
    assert failed(evidence(active_digest=None, summary=summary(against=None))) == []


@pytest.mark.parametrize("found", [None, summary(OTHER)])
def test_evaluation_that_is_missing_or_of_another_bundle_gives_no_figure(found: Summary | None) -> None:
    names = failed(evidence(summary=found))
    own = ["held-back", "films", "sensitivity", "calibration-error", "calibration-slope", "shortcuts", "maps"]
    assert names == ["evaluation", *own, *AGAINST_ACTIVE, "shadow-share"]


def test_only_identity_can_never_be_waived() -> None:
    assert [gate.name for gate in gates(evidence(), LIMITS) if not gate.waivable] == [
        "bundle",
        "operating-point",
        "evaluation",
    ]


def test_limits_come_from_the_configuration() -> None:
    strict = Promotion(auc_margin=0.001, shadow_days=20)
    worse = evidence(summary=part("comparison", auc_interval=(-0.005, 0.02)))
    assert failed(worse) == []
    assert failed(worse, strict) == ["auc", "shadow-days"]


def test_forecast_follows_the_share_of_findings_at_the_site() -> None:
    assert forecast_below(SHADOW, summary()) == pytest.approx(0.5 * 0.004 + 0.5 * 0.5)
    assert forecast_below(replace(SHADOW, abnormal=0), summary()) == pytest.approx(0.5)
    assert forecast_below(replace(SHADOW, reported=0), summary()) is None


def test_signature_survives_more_films_and_nothing_else() -> None:
    def mark(found: Evidence, limits: Promotion = LIMITS) -> str:
        return fingerprint(found, gates(found, limits))

    signed = mark(evidence())
    assert mark(evidence(shadow=replace(SHADOW, days=16, studies=700, below=170))) == signed
    others = [
        mark(evidence(digest=OTHER)),
        mark(evidence(evaluation_digest="f" * 64)),
        mark(evidence(active_digest=OTHER)),
        mark(evidence(shadow=replace(SHADOW, days=1))),
        mark(evidence(), Promotion(sensitivity=0.98)),
    ]
    assert len({signed, *others}) == 6
