"""Evidence drawn onto a film."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from clearfilm.vision.contours import draw_evidence, surface_of
from clearfilm.vision.scale import ramp
from tests.result_factories import MODEL, evidence

THRESHOLD = MODEL.evidence_threshold


def grey(value: int = 128, edge: int = 1024) -> NDArray[np.uint8]:
    return np.full((edge, edge, 3), value, np.uint8)


def test_nothing_is_drawn_outside_the_contours() -> None:
    canvas, cells = grey(), evidence()
    assert draw_evidence(canvas, cells, THRESHOLD)
    surface = surface_of(cells, 1024, 1024)
    assert (canvas[surface < 0] == 128).all()
    assert (canvas[surface > 4] != 128).any()


def test_grey_values_inside_the_contours_keep_their_contrast() -> None:
    darker, lighter, cells = grey(100), grey(150), evidence()
    draw_evidence(darker, cells, THRESHOLD)
    draw_evidence(lighter, cells, THRESHOLD)
    surface = surface_of(cells, 1024, 1024)
    place = np.unravel_index(int(np.argmin(np.abs(surface - 5))), surface.shape)
    difference = lighter[place].astype(int) - darker[place].astype(int)
    assert (difference >= 38).all(), "at least three quarters of the film's contrast"


def test_a_colour_means_the_same_evidence_in_every_study() -> None:
    one, other = grey(), grey()
    cells = np.full((8, 8), -2, np.float32)
    cells[1:4, 1:4] = 5
    draw_evidence(one, cells, THRESHOLD)
    cells[5:8, 5:8] = 40
    draw_evidence(other, cells, THRESHOLD)
    assert np.array_equal(one[256, 256], other[256, 256])
    assert not np.array_equal(other[256, 256], other[700, 700])


def test_evidence_beyond_the_scale_has_its_last_colour() -> None:
    canvas = grey(0)
    draw_evidence(canvas, np.full((7, 7), 1e6, np.float32), THRESHOLD)
    assert np.allclose(canvas[500, 500], ramp()[255] * 0.2, atol=1)


def test_colour_scale_grows_lighter_all_the_way() -> None:
    lightness = cv2.cvtColor(ramp()[None, :, :], cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert (np.diff(lightness) >= 0).all()
    assert lightness[-1] - lightness[0] > 120


def test_peak_is_marked_where_its_cell_looks() -> None:
    canvas = grey()
    draw_evidence(canvas, evidence(at=(2, 4)), THRESHOLD)
    row, column = (round((32 * cell + 0.5) / 224 * 1024) for cell in (2, 4))
    assert canvas[row, column, 0] > 240


@pytest.mark.parametrize(("rows", "columns"), [(224, 224), (1024, 1024), (801, 907), (2999, 1501)])
def test_values_of_cells_lie_where_the_cells_look(rows: int, columns: int) -> None:
    cells = np.random.default_rng(1).normal(0, 3, (7, 7)).astype(np.float32)
    enlarged = surface_of(cells, rows, columns)
    assert enlarged.shape == (rows, columns)
    looked_at = np.floor((32 * np.arange(7) + 0.5) / 224 * np.array([[rows], [columns]])).astype(int)
    assert np.allclose(enlarged[np.ix_(*looked_at)], cells, atol=0.2)
    assert np.allclose(enlarged[-1, -1], cells[-1, -1], atol=0.1)
