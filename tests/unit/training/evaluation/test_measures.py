"""Figures of merit against scikit-learn and against numbers worked out by hand."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from training.evaluation import measures
from training.evaluation.measures import Confusion
from training.ranking import area

PAPER = Confusion(found=914, missed=104, cleared=876, alarms=119)


def sample(seed: int, n: int = 400) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Films whose scores tie now and then."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(np.float32)
    logits = 1.2 * labels + rng.normal(size=n)
    return labels, np.round(1 / (1 + np.exp(-logits)), 2)


def test_reconstructed_table_gives_the_papers_six_figures() -> None:
    figures = [*PAPER.precision, *PAPER.recall, *PAPER.f1]
    assert [round(value, 3) for value in figures] == [0.894, 0.885, 0.880, 0.898, 0.887, 0.891]


@pytest.mark.parametrize("seed", range(4))
def test_table_agrees_with_scikit_learn(seed: int) -> None:
    labels, scores = sample(seed)
    found = measures.confusion(labels, scores, 0.5)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, scores >= 0.5)
    assert found.precision == pytest.approx(tuple(precision))
    assert found.recall == pytest.approx(tuple(recall))
    assert found.f1 == pytest.approx(tuple(f1))


def test_share_of_nothing_is_no_number() -> None:
    found = measures.confusion(np.float32([0, 1]), np.array([0.9, 0.9]), 0.5)
    assert math.isnan(found.precision[0])
    assert found.precision[1] == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    labels, scores = sample(seed)
    assert area(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert measures.brier(labels, scores) == pytest.approx(metrics.brier_score_loss(labels, scores))
    inside = np.clip(scores, 0.01, 0.99)
    assert measures.log_loss(labels, inside) == pytest.approx(metrics.log_loss(labels, inside))
    assert measures.average_precision(labels, scores) == pytest.approx(metrics.average_precision_score(labels, scores))
    curve = measures.roc(labels, scores)
    assert float(np.trapezoid(curve[:, 1], curve[:, 0])) == pytest.approx(metrics.roc_auc_score(labels, scores))
    false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert np.allclose(curve, np.stack([false, true], axis=1))


@pytest.mark.parametrize(("equal_mass", "strategy"), [(True, "quantile"), (False, "uniform")])
def test_reliability_agrees_with_scikit_learn(equal_mass: bool, strategy: str) -> None:
    rng = np.random.default_rng(0)
    scores = rng.permutation((np.arange(600) + 0.5) / 600)  # as many in each bin either way
    labels = (rng.random(600) < scores).astype(np.float32)
    share, score = calibration_curve(labels, scores, n_bins=15, strategy=strategy)
    found = measures.reliability(labels, scores, equal_mass=equal_mass)
    assert [one.share for one in found] == pytest.approx(list(share))
    assert [one.score for one in found] == pytest.approx(list(score))
    expected = np.abs(share - score).mean()
    assert measures.calibration_error(labels, scores, equal_mass=equal_mass) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    labels, scores = np.float32([0, 0, 1, 1]), np.array([0.1, 0.3, 0.6, 0.8])
    # Two bins: mean score 0.2 with none abnormal, mean score 0.7 with all abnormal.
    assert measures.calibration_error(labels, scores, bins=2) == pytest.approx((0.2 + 0.3) / 2)
    assert measures.calibration_error(labels, np.array([0.0, 0.0, 1.0, 1.0])) == 0


@pytest.mark.parametrize("seed", range(3))
def test_calibration_line_is_the_logistic_regression(seed: int) -> None:
    labels, scores = sample(seed)
    scores = np.clip(scores, 0.02, 0.98)
    logits = np.log(scores / (1 - scores))[:, None]
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits, labels)
    slope, intercept = measures.calibration_line(labels, scores)
    assert slope == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
    assert intercept == pytest.approx(fitted.intercept_[0], abs=1e-4)


def test_calibration_line_of_separated_films_is_no_number() -> None:
    assert math.isnan(measures.calibration_line(np.float32([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))[0])
    assert math.isnan(measures.calibration_line(np.float32([0, 1, 0, 1]), np.full(4, 0.5))[0])


@pytest.mark.parametrize(
    ("films", "sensitivity", "missed"), [(300, 0.99, 3), (100, 0.95, 5), (88, 0.99, 0), (10, 0.9, 1)]
)
def test_threshold_misses_no_more_than_it_may(films: int, sensitivity: float, missed: int) -> None:
    scores = np.concatenate([np.linspace(0.2, 0.9, films), [0.1, 0.95]])
    labels = np.concatenate([np.ones(films), [0, 0]]).astype(np.float32)
    threshold = measures.threshold_for(labels, scores, sensitivity)
    assert int((scores[labels == 1] < threshold).sum()) == missed
    assert measures.specificity_at(labels, scores, sensitivity) == 0.5


def test_predictive_value_depends_on_prevalence_as_in_the_papers_reconstruction() -> None:
    specificity, sensitivity = PAPER.recall
    values = [measures.predictive_value(sensitivity, specificity, prevalence) for prevalence in (0.1, 0.3, 0.5)]
    assert [round(value, 3) for value in values] == [0.987, 0.953, 0.896]
