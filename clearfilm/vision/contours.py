"""Evidence drawn onto a film: thin contours, a light wash inside them, a cross at the peak.

One colour scale serves all films, so that a colour always means the same evidence.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from clearfilm.vision import placing
from clearfilm.vision.scale import CONTOUR, EVIDENCE_SPAN, HALO, WASH, ramp

# Sub-pixel bits of coordinates for OpenCV.
SHIFT: Final = 4

_Image = NDArray[np.uint8]
# OpenCV's stubs know no element types.
_Array = NDArray[Any]


# Pixels on each side over which outlines are averaged.
_SMOOTHING: Final = 12


def draw_evidence(picture: _Image, evidence: NDArray[np.float32], threshold: float) -> bool:
    """Draw contours, wash and peak onto a picture, in place.

    Parameters
    ----------
    picture : numpy.ndarray
        Shape ``(rows, columns, 3)``, uint8, RGB, contiguous.
    evidence : numpy.ndarray
        Shape ``(h, w)``, float32, log-odds, of the film that the picture shows from edge to edge.
    threshold : float
        Log-odds of one cell from which it is drawn; the colour scale begins here.

    Returns
    -------
    bool
        Whether any cell passes the threshold; if not, nothing is drawn.
    """
    if not evidence.max() >= threshold:
        return False
    rows, columns = picture.shape[:2]
    surface = surface_of(evidence, rows, columns)
    inside = (surface >= threshold).view(np.uint8)
    _wash(picture, surface, inside, threshold)
    thickness = max(2, round(max(rows, columns) / 512))
    _lines(picture, _outlines(inside), thickness, closed=True)
    _lines(picture, _cross(evidence, rows, columns), thickness, closed=False)
    return True


def surface_of(evidence: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """A map enlarged to a picture of the film, each cell's value in the middle of what the cell looks at.

    Parameters
    ----------
    evidence : numpy.ndarray
        Shape ``(h, w)``, float32.
    rows, columns : int
        Of the picture, which shows the film from edge to edge.

    Returns
    -------
    numpy.ndarray
        Shape ``(rows, columns)``, float32, cubic between the cells; beyond the last ones their values go on.
    """
    height, width = evidence.shape
    # Enlarging puts values into the middle of equal parts: one row and column more, and what is too much cut off.
    further: _Array = cv2.copyMakeBorder(evidence, 0, 1, 0, 1, cv2.BORDER_REPLICATE)
    part = rows / height, columns / width
    size = columns + round(part[1]), rows + round(part[0])
    enlarged: _Array = cv2.resize(further, size, interpolation=cv2.INTER_CUBIC)
    top, left = (round((0.5 - placing.CENTRE) * pixels) for pixels in part)
    return np.ascontiguousarray(enlarged[top : top + rows, left : left + columns])


def _wash(picture: _Array, surface: _Array, inside: _Array, threshold: float) -> None:
    left, top, width, height = cv2.boundingRect(inside)
    part = np.s_[top : top + height, left : left + width]
    excess = np.maximum(surface[part] - threshold, 0)
    level = cv2.convertScaleAbs(excess, alpha=255 / EVIDENCE_SPAN)
    colours = cv2.applyColorMap(level, ramp()[:, None, :])
    mixed = cv2.addWeighted(picture[part], 1 - WASH, colours, WASH, 0)
    cv2.copyTo(mixed, inside[part], picture[part])


def _outlines(inside: _Array) -> list[_Array]:
    """Closed outlines in sub-pixel units; one that meets an edge of the picture runs on outside of it."""
    outside = 2 * _SMOOTHING
    padded = cv2.copyMakeBorder(inside, outside, outside, outside, outside, cv2.BORDER_REPLICATE)
    found, _ = cv2.findContours(padded, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(-outside, -outside))
    return [_smooth(outline[:, 0, :]) for outline in found]


def _smooth(points: _Array) -> _Array:
    """A closed outline without the steps of the pixel grid, in sub-pixel units."""
    reach = min(_SMOOTHING, len(points) // 4)
    ring = np.concatenate([points[len(points) - reach :], points, points[:reach]])
    sums = np.cumsum(np.concatenate([np.zeros((1, 2), np.int64), ring]), axis=0)
    window = 2 * reach + 1
    return subpixel((sums[window:] - sums[:-window]) / window)


def _cross(evidence: _Array, rows: int, columns: int) -> list[_Array]:
    """The two strokes that mark where the cell with the most evidence looks."""
    row, column = placing.peak(evidence)
    centre = np.array([column * columns, row * rows])
    arm = max(rows, columns) / 128
    strokes = np.array([[[-arm, 0], [arm, 0]], [[0, -arm], [0, arm]]])
    return [subpixel(stroke + centre) for stroke in strokes]


def _lines(picture: _Array, lines: list[_Array], thickness: int, *, closed: bool) -> None:
    for colour, width in ((HALO, thickness + 2), (CONTOUR, thickness)):
        cv2.polylines(picture, lines, closed, colour, width, cv2.LINE_AA, SHIFT)


def subpixel(points: _Array) -> _Array:
    """Coordinates as OpenCV takes them with `SHIFT`."""
    return np.round(points * (1 << SHIFT)).astype(np.int32)
