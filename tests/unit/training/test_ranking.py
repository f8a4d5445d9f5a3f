"""AUC and its upper part."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from training.ranking import area, criterion, partial_area


def scores(seed: int, normal: int = 300, abnormal: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [normal, abnormal]).astype(np.float32)
    return labels, np.round(rng.normal(labels * 1.5, 1), 1)  # with ties


@pytest.mark.parametrize("seed", range(5))
def test_area_is_that_of_scikit_learn(seed: int) -> None:
    labels, values = scores(seed)
    assert area(labels, values) == pytest.approx(roc_auc_score(labels, values))


@pytest.mark.parametrize("seed", range(5))
def test_partial_area_is_the_integral_of_the_curve(seed: int) -> None:
    labels, values = scores(seed)
    values = values + np.random.default_rng(9).random(len(values)) * 1e-6  # no ties: the curve is made of steps
    false, true, _ = roc_curve(labels, values, drop_intermediate=False)
    wanted = np.linspace(0.95, 1, 20_001)[1:]
    specificities = 1 - false[np.searchsorted(true, wanted - 1e-9, side="left")]
    assert partial_area(labels, values) == pytest.approx(specificities.mean(), abs=1e-3)


def test_perfect_ranking_is_one_and_reversed_ranking_zero() -> None:
    labels = np.array([0, 0, 1, 1], dtype=np.float32)
    assert criterion(labels, np.array([1.0, 2, 3, 4])) == (1, 1, 1)
    assert criterion(labels, np.array([4.0, 3, 2, 1])) == (0, 0, 0)


def test_one_low_abnormal_film_spoils_the_part_but_not_the_whole() -> None:
    labels, values = scores(1)
    values = values + 10 * labels
    values[-1] = -100
    whole, part, _ = criterion(labels, values)
    assert whole > 0.99
    assert part == pytest.approx(0.9)
