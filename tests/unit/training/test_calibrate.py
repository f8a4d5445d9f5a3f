"""Calibration, operating point, thresholds."""

import numpy as np
import pytest

from clearfilm.errors import TrainingError
from training.calibrate import (
    allowed_misses,
    area_metric,
    fewest_abnormal_patients,
    fit_calibration,
    fit_evidence_threshold,
    fit_gate,
    fit_operating_point,
    share_metric,
)


def test_calibration_finds_known_slope_and_intercept() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(np.float32)
    found = fit_calibration(logits, labels)
    assert found.slope == pytest.approx(0.5, rel=0.05)
    assert found.intercept == pytest.approx(-1, rel=0.05)


def test_perfect_separation_gives_a_finite_slope() -> None:
    labels = np.repeat([0, 1], 5).astype(np.float32)
    assert 0 < fit_calibration(labels.astype(np.float64) * 1e-3, labels).slope < 1e5


def test_useless_network_is_refused_with_counts() -> None:
    labels = np.repeat([0, 1], 5).astype(np.float32)
    with pytest.raises(TrainingError, match="5 normal and 5 abnormal"):
        fit_calibration(-labels.astype(np.float64), labels)


@pytest.mark.parametrize(("sensitivity", "patients"), [(0.95, 59), (0.98, 149), (0.99, 299), (0.995, 598)])
def test_fewest_patients_are_those_of_the_literature(sensitivity: float, patients: int) -> None:
    assert fewest_abnormal_patients(sensitivity, 0.95) == patients
    assert allowed_misses(patients, sensitivity, 0.95) == 0
    assert allowed_misses(patients - 1, sensitivity, 0.95) == -1


@pytest.mark.parametrize(("patients", "misses"), [(500, (4, 1)), (1000, (12, 4)), (2000, (29, 12)), (5000, (83, 38))])
def test_allowed_misses_are_those_of_the_table(patients: int, misses: tuple[int, int]) -> None:
    assert tuple(allowed_misses(patients, target, 0.95) for target in (0.98, 0.99)) in (misses, misses[:2])


def test_operating_point_takes_the_first_guarantee_that_is_possible() -> None:
    scores = np.linspace(0.01, 0.99, 120)
    patients = [str(number) for number in range(120)]
    point = fit_operating_point(scores, np.ones(120, np.float32), patients, (0.99, 0.95), 0.95)
    assert point is not None
    assert (point.sensitivity, point.abnormal_patients, point.misses) == (0.95, 120, 1)
    assert point.threshold == scores[1]


def test_several_films_of_one_patient_count_once() -> None:
    labels = np.ones(400, np.float32)
    assert fit_operating_point(np.linspace(0, 1, 400), labels, ["one"] * 400, (0.9,), 0.95) is None


def test_guarantee_holds_on_new_patients() -> None:
    rng, kept = np.random.default_rng(1), 0
    for _ in range(200):
        labels = np.ones(300, np.float32)
        point = fit_operating_point(rng.random(300), labels, [str(n) for n in range(300)], (0.95,), 0.95)
        assert point is not None
        kept += 1 - point.threshold >= 0.95  # scores are uniform: the true sensitivity
    assert kept >= 180


def test_evidence_threshold_lets_no_more_normal_films_show_a_contour() -> None:
    peaks = np.random.default_rng(0).normal(1, 1, 200).astype(np.float32)
    threshold = fit_evidence_threshold(peaks, 0.05)
    assert (peaks >= threshold).sum() == 10
    assert fit_evidence_threshold(peaks[:5], 0.05) > peaks[:5].max()
    assert fit_evidence_threshold(np.full(5, -3, np.float32), 0.05) > 0


def test_gate_passes_films_like_those_it_knows() -> None:
    rng = np.random.default_rng(0)
    gate, subspace = fit_gate(rng.random((6, 40), dtype=np.float32), rng.random((9, 40), dtype=np.float32), 1.2)
    assert gate.threshold > 0
    assert subspace["basis"].shape == (5, 40)


def test_intervals_enclose_the_value() -> None:
    labels = np.repeat([0, 1], 30).astype(np.float32)
    scores = np.random.default_rng(0).normal(labels, 1)
    metric = area_metric("AUC", labels, scores, [str(number) for number in range(60)])
    assert metric.low < metric.value < metric.high
    assert (metric.normal, metric.abnormal) == (30, 30)
    share = share_metric(
        "sensitivity", np.repeat([True, False], [914, 104]), [str(place) for place in range(1018)], normal=False
    )
    assert (share.value, share.low, share.high) == (0.8978, 0.8776, 0.9158)
