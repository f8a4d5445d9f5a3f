"""The picture of a Secondary Capture: the film, strips with words above and below it, evidence where it is.

The film's grey values stay as they are but for thin contours and a light wash inside them. One colour
scale serves all studies, so that a colour always means the same evidence.
"""

from datetime import datetime
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clearfilm.triage import Decision
from clearfilm.vision.contours import SHIFT, draw_evidence, subpixel
from clearfilm.vision.scale import EVIDENCE_SPAN, Colour, ramp
from worker.results.model import Film, ModelIdentity, StudyConclusion
from worker.results.words import NOT_DIAGNOSTIC, film_number, plain, score_words

# Below this the words cannot be read beside the film: smaller films are enlarged.
MINIMUM_EDGE: Final = 768

_Image = NDArray[np.uint8]
# OpenCV's stubs know no element types.
_Array = NDArray[Any]

_STRIP: Final = Colour(15, 18, 22)
_HAIRLINE: Final = Colour(52, 59, 67)
_TEXT: Final = Colour(232, 236, 240)
_QUIET: Final = Colour(150, 160, 170)
# Colour and shape say the same; neither is needed alone. Told apart with every kind of colour blindness.
_DECISION_COLOURS: Final = {
    Decision.SIGNIFICANT_FINDING: Colour(255, 182, 72),
    Decision.NO_SIGNIFICANT_FINDING: Colour(126, 196, 232),
    Decision.NOT_ANALYSED: Colour(184, 190, 198),
}
_TRIANGLE: Final = ((0, -1), (1.12, 0.9), (-1.12, 0.9))
_BAR: Final = ((-1, -0.2), (1, -0.2), (1, 0.2), (-1, 0.2))
_NOTHING: Final = "nothing is drawn below the operating point"
# Sizes for a film of 1024 pixels.
_MARGIN: Final = 20
_LEGEND: Final = 250
_NARROWEST: Final = 580


def draw(conclusion: StudyConclusion, index: int) -> _Image:
    """Draw the picture for one analysed film.

    Parameters
    ----------
    conclusion : StudyConclusion
    index : int
        Which of its films, from 0; it must be analysed.

    Returns
    -------
    numpy.ndarray
        Shape ``(rows, columns, 3)``, uint8, RGB: a strip with decision and score, the film, a strip with
        origin and legend. Films smaller than `MINIMUM_EDGE` are enlarged, very narrow ones get black
        sides. Nothing is drawn on a film below the operating point.
    """
    film, model = conclusion.films[index], conclusion.model
    assert film.display is not None
    assert film.evidence is not None
    assert model is not None
    picture: _Array = cv2.cvtColor(_enlarged(film.display), cv2.COLOR_GRAY2RGB)
    drawn = film.above and draw_evidence(picture, film.evidence, model.evidence_threshold)
    scale = max(picture.shape[:2]) / 1024
    picture = _widened(picture, round(_NARROWEST * scale))
    width = picture.shape[1]
    top = _top_strip(conclusion, index, width, scale)
    bottom = _bottom_strip(conclusion, film, drawn=drawn, width=width, scale=scale)
    return np.concatenate([top, picture, bottom])


def _enlarged(display: _Array) -> _Array:
    factor = MINIMUM_EDGE / max(display.shape)
    if factor <= 1:
        return display
    return cv2.resize(display, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def _widened(picture: _Array, width: int) -> _Array:
    """Black on both sides of a film that is too narrow for the words."""
    missing = max(0, width - picture.shape[1])
    if missing == 0:
        return picture
    return cv2.copyMakeBorder(picture, 0, 0, missing // 2, missing - missing // 2, cv2.BORDER_CONSTANT)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


class _Strip:
    """A band of words; sizes and places are for a film of 1024 pixels and scaled."""

    def __init__(self, width: int, height: float, scale: float) -> None:
        self.scale = scale
        self.width = width / scale
        self.image = Image.new("RGB", (width, round(height * scale)), _STRIP)
        self._draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, words: str, size: float, colour: Colour, anchor: str = "ls") -> None:
        place = (x * self.scale, y * self.scale)
        self._draw.text(place, words, fill=colour, font=_font(round(size * self.scale)), anchor=anchor)

    def pixels(self) -> _Image:
        return np.array(self.image)


def _length(words: str, size: float, scale: float) -> float:
    return _font(round(size * scale)).getlength(words) / scale


def _fitted(words: str, size: float, scale: float, room: float) -> str:
    if _length(words, size, scale) <= room:
        return words
    while words and _length(words + "...", size, scale) > room:
        words = words[:-1]
    return words.rstrip() + "..."


def _top_strip(conclusion: StudyConclusion, index: int, width: int, scale: float) -> _Image:
    decision, score = conclusion.decision, score_words(conclusion, index)
    if len(conclusion.films) > 1:
        score = f"{film_number(conclusion, index)} · {score}"
    headline, indent, room = decision.words.upper(), 58, width / scale - _MARGIN
    beside = indent + _length(headline, 30, scale) + 2 * _MARGIN + _length(score, 21, scale) <= room
    lines = [] if beside else [(score, 21, _TEXT)]
    if decision is Decision.NOT_ANALYSED:
        lines.append((plain(conclusion.reason), 19, _QUIET))
    if conclusion.correction is not None:
        words = f"corrected by a radiologist; the AI's answer was: {conclusion.correction.answer.words}"
        lines.append((words, 19, _TEXT))
    strip = _Strip(width, 64 + 30 * len(lines), scale)
    strip.text(indent, 43, headline, 30, _DECISION_COLOURS[decision])
    if beside:
        strip.text(room, 43, score, 21, _TEXT, "rs")
    for row, (words, size, colour) in enumerate(lines):
        strip.text(indent, 75 + 30 * row, _fitted(words, size, scale, room - indent), size, colour)
    pixels = strip.pixels()
    _shape(pixels, decision, scale)
    pixels[-1:] = _HAIRLINE
    return pixels


def _bottom_strip(conclusion: StudyConclusion, film: Film, *, drawn: bool, width: int, scale: float) -> _Image:
    model, moment = conclusion.model, conclusion.concluded_at
    assert model is not None
    lines = (
        (f"{NOT_DIAGNOSTIC} · {plain(model.note)}", _TEXT),
        (f"{plain(model.name)} {plain(model.version)} · {moment:%Y-%m-%d %H:%M} {_zone(moment)}", _QUIET),
    )
    room = width / scale - 2 * _MARGIN
    beside = max(_length(words, 17, scale) for words, _ in lines) + _LEGEND + _MARGIN <= room
    strip = _Strip(width, 74 if beside else 136, scale)
    for row, (words, colour) in enumerate(lines):
        strip.text(_MARGIN, 31 + 26 * row, _fitted(words, 17, scale, room), 17, colour)
    x, y = (_MARGIN + room - _LEGEND, 0) if beside else (_MARGIN, 62)
    if drawn:
        pixels = _legend(strip, model, film, x, y)
    else:
        words = f"no region above the evidence threshold {model.evidence_threshold:.1f}" if film.above else _NOTHING
        strip.text(x + _LEGEND * beside, y + 31, words, 15, _QUIET, "rs" if beside else "ls")
        pixels = strip.pixels()
    pixels[:1] = _HAIRLINE
    return pixels


def _legend(strip: _Strip, model: ModelIdentity, film: Film, x: float, y: float) -> _Image:
    assert film.evidence is not None
    low, peak = model.evidence_threshold, float(film.evidence.max())
    strip.text(x, y + 27, "evidence, log-odds", 15, _QUIET)
    strip.text(x + _LEGEND, y + 27, f"peak {peak:.1f}", 15, _TEXT, "rs")
    strip.text(x, y + 62, f"{low:.1f}", 14, _QUIET)
    strip.text(x + _LEGEND, y + 62, f"{low + EVIDENCE_SPAN:.1f}+", 14, _QUIET, "rs")
    pixels, scale = strip.pixels(), strip.scale
    left, right = round(x * scale), round((x + _LEGEND) * scale)
    levels = np.linspace(0, 255, right - left).round().astype(np.intp)
    pixels[round((y + 37) * scale) : round((y + 45) * scale), left:right] = ramp()[levels]
    mark = x + _LEGEND * min((peak - low) / EVIDENCE_SPAN, 1)
    for colour, reach in ((_STRIP, 3.5), (_TEXT, 1.5)):
        part = round((mark - reach) * scale), round((mark + reach) * scale)
        pixels[round((y + 34) * scale) : round((y + 48) * scale), part[0] : part[1]] = colour
    return pixels


def _zone(moment: datetime) -> str:
    offset = moment.strftime("%z")
    return "UTC" if offset == "+0000" else f"UTC{offset[:3]}:{offset[3:5]}"


def _shape(pixels: _Image, decision: Decision, scale: float) -> None:
    colour, centre, size = _DECISION_COLOURS[decision], np.array([32, 32.5]), 11.5
    if decision is Decision.NO_SIGNIFICANT_FINDING:
        radius = round(size * 0.86 * scale * (1 << SHIFT))
        thickness = max(2, round(3.4 * scale))
        cv2.circle(pixels, subpixel(centre * scale).tolist(), radius, colour, thickness, cv2.LINE_AA, SHIFT)
        return
    corners = _TRIANGLE if decision is Decision.SIGNIFICANT_FINDING else _BAR
    points = subpixel((np.array(corners) * size + centre) * scale)
    cv2.fillPoly(pixels, [points], colour, cv2.LINE_AA, SHIFT)
