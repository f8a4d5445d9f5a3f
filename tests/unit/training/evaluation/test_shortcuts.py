"""What can be told without looking at the lungs."""

import numpy as np
import pytest

from tests.cohort_factories import picture
from tests.evaluation_factories import sample
from training.evaluation import shortcuts


def test_view_that_goes_with_the_label_is_found_out() -> None:
    labels = [1, 0] * 40
    views = ["PA" if label else "AP" for label in labels]
    telling = sample(labels, view=views)
    assert shortcuts.metadata_area(telling, None) == pytest.approx(1.0)
    silent = shortcuts.metadata_area(sample(labels, view=["PA"] * 80), None)
    assert silent is not None
    assert silent < 0.55


def test_regression_learns_from_the_training_patients_if_there_are_any() -> None:
    labels = [1, 0] * 10
    test = sample(labels, view=["PA" if label else "AP" for label in labels])
    opposite = sample(labels, view=["AP" if label else "PA" for label in labels])
    assert shortcuts.metadata_area(test, opposite) == 0
    one_label = sample([1, 1, 1])
    assert shortcuts.metadata_area(test, one_label) == 1


def test_too_few_patients_give_no_figure() -> None:
    assert shortcuts.metadata_area(sample([1, 0, 0, 0, 0, 0]), None) is None
    one_patient = sample([1, 0] * 10, patient=["P"] * 20)
    assert shortcuts.metadata_area(one_patient, None) is None


def test_patients_never_stand_on_both_sides_of_the_cross_validation() -> None:
    # Each patient has one tell-tale age, which is of no use for another patient.
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.permutation([0, 1] * 15), 4).tolist()
    patients = [f"P{place // 4}" for place in range(120)]
    ages = [str(20 + 2 * (place // 4)) for place in range(120)]
    found = shortcuts.metadata_area(sample(labels, patient=patients, age=ages), None)
    assert found is not None
    assert found < 0.75


def test_thumbnail_sees_brightness_and_nothing_small() -> None:
    bright = np.full((224, 224), 200, np.uint8)
    bright[100:102, 100:102] = 255
    assert shortcuts.thumbnail(bright).shape == (1024,)
    assert np.ptp(shortcuts.thumbnail(bright)) < 6


def test_lungs_are_black_and_the_rest_is_left() -> None:
    film = picture(abnormal=False, seed=3, edge=96)
    film[film == 0] = 1
    without = shortcuts.without_lungs(film)
    changed = without != film
    assert 0.05 < changed.mean() < 0.6
    assert (without[changed] == 0).all()


def test_chosen_films_are_spread_over_all() -> None:
    assert shortcuts.evenly(3, 10) == [0, 1, 2]
    assert shortcuts.evenly(101, 3) == [0, 50, 100]
