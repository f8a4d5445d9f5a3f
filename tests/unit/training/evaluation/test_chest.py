"""Lungs and chest on a drawn phantom and on real films."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.phantoms import EDGE, phantom
from training.evaluation.chest import chest, find_chest, lung_fields
from training.films import prepare_picture


@pytest.mark.parametrize("edge", [64, 224, 320])
def test_lungs_of_a_phantom_are_found_at_any_size(edge: int) -> None:
    film, truth = phantom(edge=edge)
    found = find_chest(film)
    assert found.lungs.shape == found.chest.shape == film.shape
    assert found.found == (True, True)
    inside = truth == 1
    assert (found.lungs & inside).sum() / (found.lungs | inside).sum() > 0.85


def test_missing_lung_is_flagged_and_the_other_one_mirrored() -> None:
    found = find_chest(phantom(lungs=1)[0])
    assert found.found == (True, False)
    assert found.fell_back
    np.testing.assert_array_equal(found.lungs, found.lungs[:, ::-1])


def test_film_without_lungs_gets_the_usual_shape() -> None:
    found = find_chest(phantom(lungs=0)[0])
    assert found.found == (False, False)
    assert 0.15 < found.lungs.mean() < 0.3
    assert not found.lungs[:, EDGE // 2 - 4 : EDGE // 2 + 4].any()


def test_chest_holds_lungs_and_heart_but_neither_corners_nor_neck() -> None:
    film, _ = phantom()
    around = chest(film)
    assert around[lung_fields(film)].all()
    assert around[110, 112]
    assert not around[:8].any()
    assert not around[-20:].any()


def test_both_lungs_are_found_on_clear_real_films(shared: Path) -> None:
    root = shared / "data" / "cxr"
    with (root / "cohort.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["label"] == "normal" and row["view"] == "PA"][:30]
    found = [find_chest(prepare_picture(root / row["file"], EDGE).network_input) for row in rows]
    assert np.mean([not one.fell_back for one in found]) > 0.8
    for one in found:
        assert 0.1 < one.lungs.mean() < 0.4
        assert one.lungs.mean() < one.chest.mean() < 0.85
        left, right = one.lungs[:, : EDGE // 2].mean(), one.lungs[:, EDGE // 2 :].mean()
        assert min(left, right) > 0.25 * max(left, right)
