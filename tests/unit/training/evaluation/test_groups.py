"""Figures on groups of films."""

import pytest

from tests.evaluation_factories import answers, sample
from training.evaluation.groups import FEW, by_key, is_small, measure
from training.evaluation.intervals import exact


def test_operating_point_counts_a_film_at_the_threshold_as_found() -> None:
    found = measure(sample([1, 1, 0, 0]), answers([0.5, 0.4, 0.5, 0.1]))
    assert (found.sensitivity, found.specificity) == (0.5, 0.5)
    assert found.sensitivity_interval == pytest.approx(exact(1, 2))
    assert found.auc == 0.625


def test_group_of_one_label_has_the_other_figures_only() -> None:
    found = measure(sample([1, 1]), answers([0.9, 0.2]))
    assert (found.auc, found.auc_interval, found.specificity, found.sensitivity) == (None, None, None, 0.5)


def test_without_operating_point_there_is_no_sensitivity() -> None:
    found = measure(sample([1, 0]), answers([0.9, 0.2], None))
    assert (found.sensitivity, found.specificity, found.auc) == (None, None, 1.0)


def test_groups_are_named_by_what_is_stated() -> None:
    films = sample([1, 0, 0, 1], view=["PA", "", "PA", "AP"], age=["39", "", "40", "85"], device=["", "A", "A", "B"])
    scores = answers([0.9, 0.2, 0.3, 0.8])
    assert {name: group.n for name, group in by_key(films, scores, "view").items()} == {"PA": 2, "AP": 1, "unknown": 1}
    assert list(by_key(films, scores, "age")) == ["18-39", "40-59", "80 and over", "unknown"]
    assert next(iter(by_key(films, scores, "device"))) == "A"


def test_few_films_of_either_label_make_a_group_small() -> None:
    large = measure(sample([1, 0] * FEW), answers([0.9, 0.2] * FEW))
    assert not is_small(large)
    assert is_small(measure(sample([1] * FEW + [0]), answers([0.9] * FEW + [0.1])))
