"""Two bundles on the same films."""

from typing import Any

import numpy as np
import pytest

from tests.evaluation_factories import answers, sample
from training.evaluation.comparison import Duel, compare
from training.evaluation.groups import FEW, Sample
from training.evaluation.reading import Answers


def duel(films: Sample, ours: Answers, theirs: Answers, severity: str = "critical") -> Duel:
    severities: Any = [severity if film.abnormal else None for film in films.films]
    return compare(films, ours, theirs, severities, "d" * 64)


def test_each_bundle_is_judged_at_its_own_threshold() -> None:
    films = sample([1, 1, 0, 0])
    found = duel(films, answers([0.9, 0.2, 0.1, 0.6], 0.5), answers([0.9, 0.8, 0.1, 0.6], 0.7)).comparison
    assert found.new_critical_misses == (films.films[1].sha256,)
    assert found.specificity_difference == -0.5
    assert found.auc_difference == pytest.approx(0.75 - 1.0)


def test_only_critical_films_that_the_other_found_are_new() -> None:
    films = sample([1, 1, 0])
    assert not duel(films, answers([0.1, 0.9, 0.2]), answers([0.2, 0.9, 0.1])).comparison.new_critical_misses
    assert not duel(films, answers([0.1, 0.9, 0.2]), answers([0.9, 0.9, 0.1]), "finding").comparison.new_critical_misses


def test_largest_loss_looks_into_groups_that_are_large_enough() -> None:
    # All women: one in ten newly missed. Of the few at another site all are missed, which does not count.
    number = 2 * FEW
    labels = [1] * number + [0] * 4
    sexes = ["F"] * FEW + ["M"] * FEW + ["F"] * 4
    sites = ["A"] * (number - 2) + ["B"] * 2 + ["A"] * 4
    ours = np.array([0.9] * number + [0.1] * 4)
    ours[:3] = 0.2
    ours[number - 2 : number] = 0.2
    theirs = np.array([0.9] * number + [0.1] * 4)
    found = duel(sample(labels, sex=sexes, site=sites), answers(ours), answers(theirs)).comparison
    assert found.largest_group_loss == pytest.approx(0.1)
    assert (found.critical, found.groups) == (number, 6)
    assert duel(sample(labels, sex=sexes), answers(theirs), answers(ours)).comparison.largest_group_loss == 0


def test_bundle_without_operating_point_misses_nothing() -> None:
    films = sample([1, 1, 0, 0])
    found = duel(films, answers([0.2, 0.9, 0.1, 0.6]), answers([0.2, 0.9, 0.1, 0.6], None))
    assert found.comparison.new_critical_misses == (films.films[0].sha256,)
    assert found.comparison.specificity_difference is None
    assert found.other.sensitivity is None
