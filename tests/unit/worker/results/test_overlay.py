"""The picture of a Secondary Capture."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from clearfilm.triage import Decision
from tests.result_factories import MODEL, conclusion, evidence, film, film_above, film_not_analysed, picture
from worker.results.overlay import MINIMUM_EDGE, draw
from worker.results.words import score_words

TOP_STRIP = 64 * 900 // 1024


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
