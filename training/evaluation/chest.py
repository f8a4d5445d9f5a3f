"""Where the lungs and the chest lie on a frontal film, by classical image processing: no model judges a model.

Coarse on purpose: good enough to plant an opacity in a lung, to black the lungs out, and to ask how much of a
map's evidence lies outside the chest. A lung is the dark region that, over all grey levels, looks most like one; where
none does, something stands in for it, and the result says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# All work is done at this size; all lengths below are shares of the film's side.
_EDGE: Final = 128
# Centre (column, row) and half axes of the lung on the picture's left; its long axis leans to the middle at the apex.
_CENTRE: Final = (0.29, 0.43)
_HALF_AXES: Final = (0.13, 0.28)
_TILT_DEGREES: Final = 8
_STRETCH: Final = (0.6, 0.8, 1.0, 1.2)  # of the long axis
_SHIFT: Final = (0.11, 0.14)  # how far a lung's centre may lie from there
_MIDDLE: Final = 0.56  # how far it may reach across
_AREA: Final = (0.035, 0.2)
_LIKENESS: Final = 0.62  # least overlap (intersection over union) with a usual outline
_LARGER: Final = 2.0  # what a share of the film is worth against that
_SMOOTHING: Final = 1.5  # pixels
_SLOW: Final = 0.2
_LEVELS: Final = 26
_TINY: Final = (0.02, 0.04)  # radii of the bridges that are cut
_NOTCH: Final = 0.06
_WALL: Final = 0.04  # ribs and skin around the lungs


@dataclass(frozen=True, eq=False)
class Chest:
    """Lungs and chest of one film.

    Parameters
    ----------
    lungs : numpy.ndarray
        bool, shape of the film: what of the lungs is not hidden behind heart and diaphragm.
    chest : numpy.ndarray
        bool, shape of the film: lungs, what is between them, and the wall around them.
    found : tuple of bool
        For the lung on the picture's left and on its right, whether it was found there. For one that was not stands
        the other one's mirror image, or a usual lung if neither was found.
    """

    lungs: Mask
    chest: Mask
    found: tuple[bool, bool]

    @property
    def fell_back(self) -> bool:
        """Whether something stands in for a lung that was not found."""
        return not all(self.found)


def lung_fields(film: NDArray[np.uint8]) -> Mask:
    """`Chest.lungs` of a film, see `find_chest`."""
    return find_chest(film).lungs


def chest(film: NDArray[np.uint8]) -> Mask:
    """`Chest.chest` of a film, see `find_chest`."""
    return find_chest(film).chest


def find_chest(film: NDArray[np.uint8]) -> Chest:
    """Find lungs and chest.

    Parameters
    ----------
    film : numpy.ndarray
        uint8, square, bright = dense, as from `clearfilm.dicom.pixels.network_input`; an upright frontal chest film.

    Returns
    -------
    Chest
    """
    pictures = _pictures(film)
    left, right = (_lung(pictures, mirrored=mirrored) for mirrored in (False, True))
    lungs = _or_stand_in(left, right) | _or_stand_in(right, left, mirrored=True)
    return Chest(
        lungs=_enlarged(lungs, film.shape[0]),
        chest=_enlarged(_around(lungs), film.shape[0]),
        found=(left is not None, right is not None),
    )


def _or_stand_in(lung: Mask | None, other: Mask | None, *, mirrored: bool = False) -> Mask:
    """The lung; else the other one mirrored, which follows the patient's size and place; else the usual shape."""
    if lung is not None:
        return lung
    if other is not None:
        return other[:, ::-1]
    return _shape()[:, ::-1] if mirrored else _shape()


def _pictures(film: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """The film smoothed: as it is, with local contrast raised, and with slow changes of brightness taken out."""
    small = cv2.resize(film, (_EDGE, _EDGE), interpolation=cv2.INTER_AREA)
    raised = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(2, 2)).apply(small)
    grey = small.astype(np.float32)
    plain = np.asarray(cv2.GaussianBlur(grey, (0, 0), _SMOOTHING))
    slow = np.asarray(cv2.GaussianBlur(grey, (0, 0), _SLOW * _EDGE))
    spread = np.sqrt(np.asarray(cv2.GaussianBlur((grey - slow) ** 2, (0, 0), _SLOW * _EDGE)))
    return [plain, cv2.GaussianBlur(raised, (0, 0), _SMOOTHING).astype(np.float32), (plain - slow) / (spread + 4)]


def _lung(pictures: list[NDArray[Any]], *, mirrored: bool) -> Mask | None:
    """The lung on one side of the picture, if there is a dark region that looks like one."""
    best, merit = None, 0.0
    for picture in pictures:
        seen = np.ascontiguousarray(picture[:, ::-1] if mirrored else picture)
        for level in np.linspace(seen.min(), seen.max(), _LEVELS)[1:-1]:
            for candidate in _candidates(seen < level):
                likeness = _likeness(candidate)
                # Of two that look alike the larger one: the outline of a part of a lung is lung-shaped too.
                value = likeness + _LARGER * float(candidate.mean())
                if likeness >= _LIKENESS and value > merit:
                    best, merit = candidate, value
    return best[:, ::-1] if best is not None and mirrored else best


def _candidates(dark: Mask) -> list[Mask]:
    """Dark regions on the left half that do not reach the film's border, in simple outlines."""
    regions = []
    for radius in _TINY:
        opened = cv2.morphologyEx(dark.view(np.uint8), cv2.MORPH_OPEN, _disc(radius))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
        for number in range(1, count):
            left, top, width, height, area = stats[number]
            inside = left > 0 and left + width < _EDGE * _MIDDLE and top > 0 and top + height < _EDGE
            if inside and area >= _AREA[0] * _EDGE**2 / 2:
                regions.append(_simple(labels == number))
    return regions


def _simple(region: Mask) -> Mask:
    """Without holes and notches, which ribs and vessels make."""
    rim = _EDGE // 8
    closed = cv2.morphologyEx(np.pad(region.view(np.uint8), rim), cv2.MORPH_CLOSE, _disc(_NOTCH))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(-rim, -rim))
    filled = np.zeros(region.shape, np.uint8)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return filled.view(np.bool_)


def _likeness(region: Mask) -> float:
    """Best overlap with a fixed shape moved over the region; 0 where place or size are not a lung's."""
    row, column = np.argwhere(region).mean(axis=0) / _EDGE
    share = region.mean()
    near = abs(column - _CENTRE[0]) <= _SHIFT[0] and abs(row - _CENTRE[1]) <= _SHIFT[1]
    if not (near and _AREA[0] <= share <= _AREA[1]):
        return 0.0
    shapes = [_shape((column, row), stretch) for stretch in _STRETCH]
    return max(float((region & shape).sum() / (region | shape).sum()) for shape in shapes)


def _shape(centre: tuple[float, float] = _CENTRE, stretch: float = 1.0) -> Mask:
    """A lung's usual outline on the picture's left; centre: column and row."""
    canvas = np.zeros((_EDGE, _EDGE), np.uint8)
    fine = 1 << 4
    place = (round(centre[0] * _EDGE * fine), round(centre[1] * _EDGE * fine))
    axes = (round(_HALF_AXES[0] * _EDGE * fine), round(_HALF_AXES[1] * stretch * _EDGE * fine))
    outline = np.asarray(cv2.ellipse2Poly(place, axes, _TILT_DEGREES, 0, 360, 10))
    cv2.fillPoly(canvas, [outline], 1, cv2.LINE_8, 4)
    return canvas.view(np.bool_)


def _around(lungs: Mask) -> Mask:
    """The convex hull of both lungs down to the lower one's base, and the wall around it."""
    lower = lungs | np.roll(lungs[:, ::-1], _axis_shift(lungs), axis=1)
    points = np.argwhere(lower)[:, ::-1].astype(np.int32)
    canvas = np.zeros(lungs.shape, np.uint8)
    cv2.fillConvexPoly(canvas, cv2.convexHull(points), 1)
    return np.asarray(cv2.dilate(canvas, _disc(_WALL))).view(np.bool_)


def _axis_shift(lungs: Mask) -> int:
    """Columns by which the mirrored lungs are moved to lie on the others' place."""
    columns = np.flatnonzero(lungs.any(axis=0))
    return int(columns[0] + columns[-1] + 1 - _EDGE)


def _disc(radius: float) -> NDArray[Any]:
    """A structuring element; radius as a share of the film's side."""
    reach = max(1, round(radius * _EDGE))
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))


def _enlarged(mask: Mask, edge: int) -> Mask:
    grey = cv2.resize(mask.astype(np.float32), (edge, edge), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grey > 0.5)
