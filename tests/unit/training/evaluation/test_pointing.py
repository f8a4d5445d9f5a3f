"""The pointing game on maps whose peaks are known."""

import numpy as np
import pytest

from tests.phantoms import phantom
from training.evaluation.planted import Opacity
from training.evaluation.pointing import pointing_hits, sweep


@pytest.mark.parametrize(
    ("peak", "hit"), [((3, 3), True), ((2, 4), True), ((4, 4), True), ((1, 3), False), ((3, 5), False), ((5, 5), False)]
)
def test_peak_counts_in_the_cell_and_the_eight_around_it(peak: tuple[int, int], hit: bool) -> None:
    maps = np.full((1, 7, 7), -2, np.float32)
    maps[0][peak] = -1
    assert pointing_hits(maps, [Opacity(row=0.5, column=0.5, size=0.1, contrast=0.3)]).tolist() == [hit]


def bright(films: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A reader that sees nothing but what is brighter than the phantom's lungs, in cells of 32 pixels."""
    excess = np.where((films > 100) & (films < 180), films.astype(np.float32) - 100, 0)
    excess[:, ~_DEEP] = 0
    maps = excess.reshape(len(films), 7, 32, 7, 32).mean(axis=(2, 4))
    return maps.max(axis=(1, 2)).astype(np.float64), maps


# The phantom's lungs without their blurred edges.
_DEEP = phantom()[1] == 1
_DEEP &= np.roll(_DEEP, 12, 1) & np.roll(_DEEP, -12, 1) & np.roll(_DEEP, 12, 0) & np.roll(_DEEP, -12, 0)


def test_sweep_tells_what_is_found_from_what_is_not() -> None:
    films = np.stack([phantom()[0]] * 12)
    plain, faint = sweep(bright, films, [(0.08, 0.3), (0.08, 0.02)], seed=0)
    assert (plain.size, plain.contrast, plain.films) == (0.08, 0.3, 12)
    assert plain.auc > 0.9
    assert plain.hits > 0.9
    assert plain.hits_interval[0] <= plain.hits <= plain.hits_interval[1]
    assert plain.auc_interval[0] <= plain.auc <= plain.auc_interval[1]
    assert faint.auc == pytest.approx(0.5)
    assert faint.hits == faint.chance == plain.chance
