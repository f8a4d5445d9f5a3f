"""DeLong's test against the slow form of its definition and against simulation."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from training.evaluation import delong


def slow(labels: NDArray[np.float32], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Every pair compared, as in the paper of 1988."""
    abnormal, normal = scores[:, labels == 1], scores[:, labels == 0]
    wins = (abnormal[:, :, None] > normal[:, None, :]) + 0.5 * (abnormal[:, :, None] == normal[:, None, :])
    by_abnormal, by_normal = wins.mean(axis=2), wins.mean(axis=1)
    m, n = by_abnormal.shape[1], by_normal.shape[1]
    return wins.mean(axis=(1, 2)), np.cov(by_abnormal) / m + np.cov(by_normal) / n


def sample(seed: int, n: int = 120) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(np.float32)
    shared = rng.normal(size=n)
    scores = np.stack([labels + shared + rng.normal(size=n), 0.7 * labels + shared + rng.normal(size=n)])
    return labels, np.round(scores, 1)  # many ties


@pytest.mark.parametrize("seed", range(5))
def test_fast_form_is_the_slow_one(seed: int) -> None:
    labels, scores = sample(seed)
    found, covariance = delong.areas(labels, scores)
    expected, expected_covariance = slow(labels, scores)
    assert found == pytest.approx(expected)
    assert covariance == pytest.approx(expected_covariance)
    assert found == pytest.approx([roc_auc_score(labels, row) for row in scores])


def test_by_hand() -> None:
    # Abnormal 3, 1; normal 2, 0: wins 1 and 1/2 by abnormal film, 1/2 and 1 by normal film.
    labels, scores = np.float32([1, 1, 0, 0]), np.array([[3.0, 1.0, 2.0, 0.0]])
    found, covariance = delong.areas(labels, scores)
    assert found[0] == 0.75
    assert covariance[0, 0] == pytest.approx(0.125 / 2 + 0.125 / 2)
    low, high = delong.interval(labels, scores[0])
    assert (low, high) == pytest.approx((0.75 - norm.ppf(0.975) * math.sqrt(0.125), 1.0), abs=1e-9)


def test_reader_against_itself_differs_by_nothing() -> None:
    labels, scores = sample(1)
    found = delong.paired(labels, scores[0], 3 * scores[0] - 1)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_true_difference_is_covered_as_often_as_promised_and_the_test_keeps_its_level() -> None:
    rng = np.random.default_rng(3)
    labels = (np.arange(200) % 2).astype(np.float32)
    covered = rejected = 0
    for _ in range(400):
        shared = rng.normal(size=200)
        scores = [1.5 * labels + shared + rng.normal(size=200) for _ in range(2)]
        found = delong.paired(labels, scores[0], scores[1])
        covered += found.low <= 0 <= found.high
        rejected += found.p_value < 0.05
    assert covered + rejected == 400
    assert 0.92 <= covered / 400 <= 0.975


def test_unpaired_difference_adds_variances() -> None:
    labels, scores = sample(0)
    other_labels, other_scores = sample(9)
    found = delong.unpaired(labels, scores[0], other_labels, other_scores[0])
    variance = slow(labels, scores)[1][0, 0] + slow(other_labels, other_scores)[1][0, 0]
    assert found.high - found.low == pytest.approx(2 * norm.ppf(0.975) * math.sqrt(variance))


def test_one_film_of_a_label_allows_no_interval() -> None:
    labels, scores = np.float32([1, 0, 0]), np.array([0.9, 0.1, 0.2])
    assert delong.interval(labels, scores) == (0, 1)
    assert delong.paired(labels, scores, scores[::-1]).p_value == 1


def test_twenty_thousand_films_take_no_time() -> None:
    rng = np.random.default_rng(4)
    labels = (rng.random(20_000) < 0.5).astype(np.float32)
    found = delong.paired(labels, labels + rng.normal(size=20_000), labels + rng.normal(size=20_000))
    assert abs(found.value) < 0.02
