"""Mild changes that a radiograph could have had: turned, shifted, scaled, exposed otherwise; never mirrored.

A mirrored chest is another diagnosis (dextrocardia), and side markers would be wrong.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

# A film is kept a little larger than the network's input, so that turning it does not blur it.
OVERSAMPLING: Final = 9 / 8
_ANGLE_DEGREES = 10.0
_SHIFT = 0.05
_SCALE = (0.9, 1.1)
_GAMMA = (0.8, 1.25)
_CONTRAST = 0.15
_BRIGHTNESS = 0.15
_RARE = 0.2  # share of films that are blurred; the same for noise and for erasing
_BLUR_PIXELS = 0.8
_NOISE_LEVELS = 5.0
_ERASED_SIDE = (0.05, 0.15)


def wide_edge(edge: int) -> int:
    """Side of the stored training film for a network input of `edge` pixels."""
    return round(edge * OVERSAMPLING)


def shrink(wide: NDArray[np.uint8], edge: int) -> NDArray[np.uint8]:
    """A stored training film at the network's size, unchanged otherwise."""
    return np.asarray(cv2.resize(wide, (edge, edge), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def augment(wide: NDArray[np.uint8], edge: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One random version of a film.

    Parameters
    ----------
    wide : numpy.ndarray
        uint8, square: the film from border to border, of any size.
    edge : int
        Side of the result, pixels.
    rng : numpy.random.Generator
        The only source of chance.

    Returns
    -------
    numpy.ndarray
        uint8, shape ``(edge, edge)``; black where the film does not reach.
    """
    moved = cv2.warpAffine(wide, _motion(wide.shape[0], edge, rng), (edge, edge), flags=cv2.INTER_LINEAR)
    exposed = cv2.LUT(moved, _exposure(rng))
    if rng.random() < _RARE:
        exposed = cv2.GaussianBlur(exposed, (0, 0), rng.uniform(0.3, _BLUR_PIXELS))
    if rng.random() < _RARE:
        noise = rng.standard_normal(exposed.shape, dtype=np.float32) * np.float32(rng.uniform(1, _NOISE_LEVELS))
        exposed = np.clip(exposed + noise + 0.5, 0, 255).astype(np.uint8)
    film = np.asarray(exposed, dtype=np.uint8)
    if rng.random() < _RARE:
        _erase(film, rng)
    return film


def _motion(wide: int, edge: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Affine map from the stored film to the result, about the centre."""
    scale = edge / wide * rng.uniform(*_SCALE)
    centre = ((wide - 1) / 2, (wide - 1) / 2)
    angle = rng.uniform(-_ANGLE_DEGREES, _ANGLE_DEGREES)
    motion = np.asarray(cv2.getRotationMatrix2D(centre, angle, scale), dtype=np.float64)
    motion[:, 2] += (edge - wide) / 2 + rng.uniform(-_SHIFT, _SHIFT, 2) * edge
    return motion


def _exposure(rng: np.random.Generator) -> NDArray[np.uint8]:
    levels = np.linspace(0, 1, 256) ** rng.uniform(*_GAMMA)
    levels = (levels - 0.5) * rng.uniform(1 - _CONTRAST, 1 + _CONTRAST) + 0.5 + rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    levels[0] = 0.0  # what is no film stays black
    table: NDArray[np.uint8] = (np.clip(levels, 0, 1) * 255 + 0.5).astype(np.uint8)
    return table


def _erase(film: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Paint a small rectangle in one grey, so that no single marker decides."""
    edge = film.shape[0]
    height, width = (rng.uniform(*_ERASED_SIDE, 2) * edge).astype(int) + 1
    top, left = rng.integers(0, edge - height), rng.integers(0, edge - width)
    film[top : top + height, left : left + width] = rng.integers(0, 256)
