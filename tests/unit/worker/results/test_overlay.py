"""The picture of a Secondary Capture."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from clearfilm.triage import Decision
from tests.result_factories import MODEL, conclusion, evidence, film, film_above, film_not_analysed, picture
from worker.results.overlay import MINIMUM_EDGE, draw, draw_evidence, ramp
from worker.results.words import score_words

TOP_STRIP = 64 * 900 // 1024


def grey(value: int = 128, edge: int = 1024) -> NDArray[np.uint8]:
    return np.full((edge, edge, 3), value, np.uint8)


def film_part(drawn: NDArray[Any], display: NDArray[np.uint8]) -> NDArray[Any]:
    """The rows of the picture that show the film: those between the strips."""
    rows = display.shape[0]
    for start in range(drawn.shape[0] - rows + 1):
        if np.array_equal(drawn[start, :, 0], display[0]):
            return drawn[start : start + rows]
    raise AssertionError("the film is not in the picture")


@pytest.mark.parametrize("shape", [(1024, 850), (820, 1024), (900, 900), (1024, 600)])
def test_film_below_the_operating_point_is_unaltered(shape: tuple[int, int]) -> None:
    display = picture(*shape)
    study = conclusion(film(display=display, evidence=evidence(9)), decision=Decision.NO_SIGNIFICANT_FINDING)
    drawn = draw(study, 0)
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] == shape[1]
    assert np.array_equal(film_part(drawn, display), np.repeat(display[..., None], 3, axis=2))


def test_film_without_a_cell_over_the_threshold_is_unaltered() -> None:
    display = picture()
    study = conclusion(film_above(display=display, evidence=evidence(1.99)), decision=Decision.SIGNIFICANT_FINDING)
    assert np.array_equal(film_part(draw(study, 0), display)[..., 1], display)


def test_words_stand_beside_the_film_not_on_it() -> None:
    display = picture()
    study = conclusion(film(display=display), decision=Decision.NO_SIGNIFICANT_FINDING)
    assert draw(study, 0).shape[0] >= display.shape[0] + 100


def test_small_film_is_enlarged_until_the_words_can_be_read() -> None:
    study = conclusion(film_above(display=picture(440, 380)), decision=Decision.SIGNIFICANT_FINDING)
    assert draw(study, 0).shape[1] == round(380 * MINIMUM_EDGE / 440)


@pytest.mark.parametrize("shape", [(1024, 3), (3, 1024), (1, 1), (768, 200)])
def test_film_of_any_shape_gets_its_words(shape: tuple[int, int]) -> None:
    study = conclusion(film_above(display=picture(*shape)), decision=Decision.SIGNIFICANT_FINDING)
    assert draw(study, 0).shape[1] >= 435


def test_nothing_is_drawn_outside_the_contours() -> None:
    canvas, cells = grey(), evidence()
    assert draw_evidence(canvas, cells, MODEL)
    surface = cv2.resize(cells, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    assert (canvas[surface < 0] == 128).all()
    assert (canvas[surface > 4] != 128).any()


def test_grey_values_inside_the_contours_keep_their_contrast() -> None:
    darker, lighter, cells = grey(100), grey(150), evidence()
    draw_evidence(darker, cells, MODEL)
    draw_evidence(lighter, cells, MODEL)
    surface = cv2.resize(cells, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    place = np.unravel_index(int(np.argmin(np.abs(surface - 5))), surface.shape)
    difference = lighter[place].astype(int) - darker[place].astype(int)
    assert (difference >= 38).all(), "at least three quarters of the film's contrast"


def test_a_colour_means_the_same_evidence_in_every_study() -> None:
    one, other = grey(), grey()
    cells = np.full((8, 8), -2, np.float32)
    cells[1:4, 1:4] = 5
    draw_evidence(one, cells, MODEL)
    cells[5:8, 5:8] = 40
    draw_evidence(other, cells, MODEL)
    assert np.array_equal(one[256, 256], other[256, 256])
    assert not np.array_equal(other[256, 256], other[700, 700])


def test_evidence_beyond_the_scale_has_its_last_colour() -> None:
    canvas = grey(0)
    draw_evidence(canvas, np.full((7, 7), 1e6, np.float32), MODEL)
    assert np.allclose(canvas[5, 5], ramp()[255] * 0.2, atol=1)


def test_colour_scale_grows_lighter_all_the_way() -> None:
    lightness = cv2.cvtColor(ramp()[None, :, :], cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert (np.diff(lightness) >= 0).all()
    assert lightness[-1] - lightness[0] > 120


def test_peak_is_marked_where_the_evidence_is_greatest() -> None:
    canvas = grey()
    draw_evidence(canvas, evidence(at=(2, 4)), MODEL)
    row, column = round(2.5 / 7 * 1024), round(4.5 / 7 * 1024)
    assert canvas[row, column, 0] > 240


def test_score_never_reads_like_the_threshold_it_differs_from() -> None:
    study = conclusion(film(score=0.3196), decision=Decision.NO_SIGNIFICANT_FINDING)
    assert score_words(study, 0) == "score 0.3196 (operating point 0.3200)"
    study = conclusion(film_above(), decision=Decision.SIGNIFICANT_FINDING)
    assert score_words(study, 0) == "score 0.87 (operating point 0.32)"


def test_pictures_of_different_decisions_differ_in_shape_not_only_in_colour() -> None:
    shapes = []
    for decision in Decision:
        marks = draw(conclusion(film(), film_not_analysed(), decision=decision), 0)[8:50, 10:46]
        shapes.append(cv2.cvtColor(marks, cv2.COLOR_RGB2GRAY) > 90)
    for first in range(3):
        for second in range(first):
            assert (shapes[first] ^ shapes[second]).sum() > 60


def test_same_conclusion_gives_the_same_picture() -> None:
    study = conclusion(film_above(), decision=Decision.SIGNIFICANT_FINDING)
    assert np.array_equal(draw(study, 0), draw(study, 0))


def test_text_that_the_font_lacks_does_not_stop_the_picture() -> None:
    study = conclusion(film(), decision=Decision.NOT_ANALYSED, reason="原因" * 200, model=replace(MODEL, note="说明"))
    assert draw(study, 0).shape[1] == 900
