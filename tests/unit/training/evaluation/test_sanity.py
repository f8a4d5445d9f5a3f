"""Sanity of maps: measures on maps whose answer is known, and a whole examination of a small random network."""

import numpy as np
import pytest
import torch

from clearfilm.vision.network import build, fold
from tests.phantoms import phantom
from training.evaluation.chest import chest
from training.evaluation.sanity import (
    CONTRASTS,
    SIZES,
    Outside,
    evidence_outside,
    examine_network,
    passes,
    rank_correlation,
    structural_similarity,
)
from training.model import Start

RNG = np.random.default_rng(0)


def maps(count: int) -> np.ndarray:
    return RNG.standard_normal((count, 7, 7)).astype(np.float32)


def test_similarity_is_one_for_the_same_map_on_any_scale_and_near_none_for_others() -> None:
    one = maps(1)[0]
    assert structural_similarity(one, 3 * one + 5) == pytest.approx(1)
    assert structural_similarity(one, -one) < 0
    assert np.mean([structural_similarity(one, other) for other in maps(50)]) == pytest.approx(0, abs=0.1)
    assert structural_similarity(one, np.zeros_like(one)) < 0.1
    assert structural_similarity(one[:2, :2], one[:2, :2]) == pytest.approx(1)


def test_rank_correlation_goes_by_order_only() -> None:
    one = maps(1)[0]
    assert rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(one, np.ones_like(one)) == 0


def test_evidence_counts_as_outside_by_area_of_its_cell() -> None:
    film = phantom()[0]
    films = np.stack([film, film, film])
    everywhere, corner, middle = np.ones((7, 7)), np.zeros((7, 7)), np.full((7, 7), -5.0)
    corner[0, 0], middle[3, 2] = 2, 1
    inside = evidence_outside(np.array([middle], np.float32), films[:1])
    assert inside.evidence == pytest.approx(0, abs=0.05)
    outside = evidence_outside(np.array([corner], np.float32), films[:1])
    assert outside.evidence == pytest.approx(1)
    even = evidence_outside(np.array([everywhere], np.float32), films[:1])
    assert even.evidence == pytest.approx(1 - chest(film).mean(), abs=1e-6)
    assert even.film == pytest.approx(even.evidence, abs=1e-6)
    both = evidence_outside(np.array([corner, middle, -everywhere], np.float32), films)
    assert (both.films, both.without_evidence) == (2, 1)
    assert both.evidence == pytest.approx((inside.evidence + outside.evidence) / 2)


def test_films_without_lungs_are_left_out_and_counted() -> None:
    found = evidence_outside(np.ones((2, 7, 7), np.float32), np.stack([phantom(lungs=0)[0], phantom(lungs=1)[0]]))
    assert (found.films, found.without_lungs, found.fell_back) == (1, 1, 1)


@pytest.mark.parametrize(
    ("similarity", "evidence", "expected"), [(0.1, 0.2, True), (0.1, 0.5, False), (0.8, 0.2, False)]
)
def test_maps_pass_that_follow_the_weights_and_lie_in_the_chest(
    similarity: float, evidence: float, expected: bool
) -> None:
    outside = Outside(evidence, film=0.5, films=9, without_evidence=0, without_lungs=0, fell_back=0)
    assert passes(similarity, outside) is expected


def test_maps_that_were_not_measured_do_not_pass() -> None:
    assert not passes(0.0, Outside(0.0, film=0.0, films=0, without_evidence=3, without_lungs=2, fell_back=0))


def test_examination_of_a_random_network(start: Start) -> None:
    network = fold(build({name: tensor.clone() for name, tensor in start.weights.items()}), mean=0.4, std=0.2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    films = np.stack([np.roll(phantom(edge=96)[0], shift, axis=1) for shift in (-3, 0, 3)])
    result = examine_network(network, 0.4, films, np.array([True, False, False]), seed=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    # Another draw of weights that were drawn at random is another map.
    assert [one.part for one in result.randomised] == ["head", "layer4.2", "layer4.1", "layer4.0"]
    assert all(one.similarity < 0.3 for one in result.randomised)
    assert all(-1 <= one.rank_correlation <= one.rank_correlation_size <= 1 for one in result.randomised)
    assert result.summary.randomised_similarity == result.randomised[-1].similarity
    assert result.summary.outside_chest == result.outside.evidence
    assert result.summary.passed == passes(result.summary.randomised_similarity, result.outside)
    assert [(one.size, one.contrast) for one in result.planted] == [(size, c) for size in SIZES for c in CONTRASTS]
    assert all(one.films == 1 for one in result.planted)


def test_without_clear_films_nothing_is_planted(start: Start) -> None:
    network = fold(build({name: tensor.clone() for name, tensor in start.weights.items()}), mean=0.4, std=0.2)
    films = np.stack([phantom(edge=64)[0]])
    result = examine_network(network, 0.4, films, np.array([False]), seed=1)
    assert result.planted == ()
    assert len(result.randomised) == 4
