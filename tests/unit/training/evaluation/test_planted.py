"""Opacities planted in a film: where, how large, how bright."""

import numpy as np
import pytest

from tests.phantoms import EDGE, phantom
from training.evaluation.chest import lung_fields
from training.evaluation.planted import Opacity, place, plant, plant_all


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return phantom()[0]


def test_only_the_surroundings_of_the_ball_change(film: np.ndarray) -> None:
    opacity = Opacity(row=0.4, column=0.3, size=0.08, contrast=0.3)
    changed = plant(film, opacity) != film
    rows, columns = np.mgrid[:EDGE, :EDGE] + 0.5
    distance = np.hypot(rows - 0.4 * EDGE, columns - 0.3 * EDGE)
    diameter = 0.08 * EDGE
    assert not changed[distance > 0.75 * diameter + 1].any()
    assert changed[distance < 0.45 * diameter].all()


@pytest.mark.parametrize("contrast", [0.05, 0.3])
@pytest.mark.parametrize("size", [0.03, 0.08, 0.16])
def test_centre_gains_the_asked_share_of_the_grey_range(contrast: float, size: float) -> None:
    grey = np.full((EDGE, EDGE), 60, np.uint8)
    # The middle of a pixel.
    opacity = Opacity(row=(90 + 0.5) / EDGE, column=(70 + 0.5) / EDGE, size=size, contrast=contrast)
    added = plant(grey, opacity).astype(int) - 60
    assert added[90, 70] == added.max() == pytest.approx(255 * contrast, abs=1)
    # A ball is 0.87 diameters wide at half its thickness; the blur takes a little of that.
    width = (added[90] >= added.max() / 2).sum()
    assert 0.78 * size * EDGE - 1 < width < 0.87 * size * EDGE + 1


def test_tissue_adds_up_and_white_is_not_exceeded() -> None:
    halves = np.full((EDGE, EDGE), 50, np.uint8)
    halves[:, EDGE // 2 :] = 80  # a rib, which stays visible
    opacity = Opacity(row=0.5, column=0.5, size=0.1, contrast=0.3)
    across = plant(halves, opacity)[EDGE // 2]
    assert across[EDGE // 2] - across[EDGE // 2 - 1] == pytest.approx(30, abs=3)
    assert plant(np.full((EDGE, EDGE), 250, np.uint8), opacity).max() == 255


def test_places_follow_from_the_seed_and_lie_in_the_lungs(film: np.ndarray) -> None:
    films, lungs = np.stack([film] * 8), [lung_fields(film)] * 8
    planted, opacities = plant_all(films, lungs, 0.08, 0.3, seed=5)
    again, same = plant_all(films, lungs, 0.08, 0.3, seed=5)
    fainter, same_places = plant_all(films, lungs, 0.08, 0.1, seed=5)
    np.testing.assert_array_equal(planted, again)
    assert opacities == same
    assert [(one.row, one.column) for one in opacities] == [(one.row, one.column) for one in same_places]
    assert (fainter.astype(int) <= planted).all()
    assert len({one.row for one in opacities}) > 1
    assert plant_all(films, lungs, 0.08, 0.3, seed=6)[1] != opacities
    assert all(lungs[0][int(one.row * EDGE), int(one.column * EDGE)] for one in opacities)


def test_a_ball_larger_than_the_lungs_still_has_its_centre_there(film: np.ndarray) -> None:
    lungs = lung_fields(film)
    opacity = place(lungs, 0.9, 0.3, np.random.default_rng(0))
    assert lungs[int(opacity.row * EDGE), int(opacity.column * EDGE)]


def test_cell_of_the_centre() -> None:
    assert Opacity(row=0.0, column=0.999, size=0.1, contrast=0.1).cell((7, 7)) == (0, 6)
    assert Opacity(row=0.5, column=1.0, size=0.1, contrast=0.1).cell((7, 5)) == (3, 4)
