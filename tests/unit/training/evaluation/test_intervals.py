"""Intervals against scipy, published numbers and known laws."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from training.evaluation.intervals import Replicates, effective, exact, upper_bound
from training.ranking import area


@pytest.mark.parametrize(("hits", "number"), [(0, 10), (10, 10), (3, 17), (914, 1018), (876, 995)])
def test_exact_interval_is_scipys(hits: int, number: int) -> None:
    expected = binomtest(hits, number).proportion_ci(method="exact")
    assert exact(hits, number) == pytest.approx((expected.low, expected.high))


def test_intervals_of_the_papers_reconstruction() -> None:
    assert [round(value, 3) for value in exact(914, 1018)] == [0.878, 0.916]
    assert [round(value, 3) for value in exact(876, 995)] == [0.859, 0.900]


def test_upper_bound_follows_the_rule_of_three() -> None:
    assert upper_bound(0, 300) == pytest.approx(3 / 300, rel=0.01)
    assert upper_bound(2, 50) == pytest.approx(binomtest(2, 50).proportion_ci(0.9, method="exact").high)
    assert upper_bound(0, 0) == upper_bound(4, 4) == 1


def test_one_film_of_each_patient_is_worth_one() -> None:
    hits = np.arange(50) % 3 == 0
    assert effective(hits, [str(place) for place in range(50)]) == (17, 50)


@pytest.mark.parametrize("hits", [np.arange(50) % 3 == 0, np.ones(50, bool), np.zeros(50, bool)])
def test_copies_of_films_tell_nothing_new(hits: np.ndarray) -> None:
    fourfold = effective(np.tile(hits, 4), [str(place % 50) for place in range(200)])
    # But for the correction of n / (n - 1), which one film each does not need.
    assert fourfold == pytest.approx((hits.sum(), 50), rel=0.03)


def test_intervals_of_patients_with_several_films_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    held = plain = 0
    for _ in range(400):
        # Eighty patients of one to five films, whose films mostly agree.
        counts = rng.integers(1, 6, 80)
        chances = rng.beta(0.9 * 0.5, 0.1 * 0.5, 80)
        hits = np.concatenate([rng.random(count) < chance for count, chance in zip(counts, chances, strict=True)])
        low, high = exact(*effective(hits, [str(owner) for owner in np.repeat(np.arange(80), counts)]))
        held += low <= 0.9 <= high
        low, high = exact(int(hits.sum()), len(hits))
        plain += low <= 0.9 <= high
    assert held / 400 >= 0.93
    assert plain / 400 < 0.9  # which is why


def test_bootstrap_of_a_mean_has_the_width_that_theory_says() -> None:
    rng = np.random.default_rng(1)
    labels = (np.arange(400) % 2).astype(np.float32)
    values = rng.normal(size=400)
    replicates = Replicates([str(number) for number in range(400)], labels)
    low, high = replicates.intervals(lambda places: np.array([values[places].mean()]))[0]
    assert high - low == pytest.approx(2 * norm.ppf(0.975) * values.std() / 20, rel=0.1)


def test_films_of_one_patient_come_and_go_together() -> None:
    labels = np.tile(np.float32([0, 0, 1, 1]), 50)
    patients = [f"P{place // 2}" for place in range(200)]
    for places in Replicates(patients, labels, 20):
        times = np.bincount(places, minlength=200)
        assert (times[::2] == times[1::2]).all()


def test_repeated_films_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(2)
    labels = (np.arange(100) % 2).astype(np.float32)
    scores = labels + rng.normal(size=100)
    once = Replicates([str(place) for place in range(100)], labels)
    fourfold = Replicates([str(place % 100) for place in range(400)], np.tile(labels, 4))
    narrow = once.intervals(lambda places: np.array([area(labels[places], scores[places])]))[0]
    same = np.tile(scores, 4)
    repeated = fourfold.intervals(lambda places: np.array([area(np.tile(labels, 4)[places], same[places])]))[0]
    assert repeated == pytest.approx(narrow, abs=0.01)


def test_samples_have_both_labels_and_figures_may_be_undefined() -> None:
    labels = np.float32([1, 0, 0, 0])
    replicates = Replicates(["a", "b", "c", "d"], labels, 200)
    assert all(0 < labels[places].sum() < len(places) for places in replicates)
    found = replicates.intervals(lambda places: np.array([np.nan, labels[places].sum() if len(places) > 1 else np.nan]))
    assert np.isnan(found[0]).all()
    assert found[1, 0] >= 1


def test_interval_is_the_same_every_time() -> None:
    labels = (np.arange(40) % 2).astype(np.float32)
    replicates = Replicates([str(place) for place in range(40)], labels, 100)
    one, other = (replicates.intervals(lambda places: np.array([labels[places].mean()])) for _ in range(2))
    assert (one == other).all()
