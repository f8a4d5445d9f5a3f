"""Opacities planted in real clear films: findings whose place, size and contrast are known exactly.

A radiograph's grey is, to a good approximation, a logarithm of exposure, and attenuation adds up along the ray. So
denser tissue *adds* to the grey of what lies before and behind it, and ribs and vessels stay visible through it: the
opacity is a ball of even tissue, whose thickness gives the profile, blurred as focal spot and movement blur it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from clearfilm.vision.placing import nearest_cell
from training.evaluation.chest import Mask

# Standard deviation of the blur, of the diameter.
BLUR: Final = 0.06
_FINE: Final = 4  # sub-pixels on each side, for small balls
# How far a ball reaches into the lung's margin, of its radius.
_OVERLAP: Final = 0.25


@dataclass(frozen=True)
class Opacity:
    """One opacity.

    Parameters
    ----------
    row, column : float
        Of its centre, as shares of the film's height and width.
    size : float
        Diameter of the ball, as a share of the film's width: 0.08 is about 3 cm.
    contrast : float
        Grey added at the centre, as a share of the film's grey range, which is that between its percentiles 0.5 and
        99.5, where the network's input is black and white.
    """

    row: float
    column: float
    size: float
    contrast: float

    def cell(self, cells: tuple[int, int]) -> tuple[int, int]:
        """Row and column of the cell that looks nearest to the centre, on a map of so many rows and columns."""
        return nearest_cell(self.row, self.column, cells)


def plant(film: NDArray[np.uint8], opacity: Opacity) -> NDArray[np.uint8]:
    """Add an opacity to a film.

    Parameters
    ----------
    film : numpy.ndarray
        uint8, square, bright = dense, with a grey range of 0 to 255 (as from
        `clearfilm.dicom.pixels.network_input`, of any size).
    opacity : Opacity

    Returns
    -------
    numpy.ndarray
        uint8, a copy; white is not exceeded. Pixels farther than 0.75 diameters from the centre are unchanged.
    """
    added = 255 * opacity.contrast * profile(film.shape[0], opacity)
    return np.clip(np.rint(film + added), 0, 255).astype(np.uint8)


def profile(edge: int, opacity: Opacity) -> NDArray[np.float64]:
    """Thickness of the blurred ball on a film of `edge` pixels: shape ``(edge, edge)``, largest value 1, else to 0."""
    side = edge * _FINE
    radius = opacity.size * side / 2
    reach = int(np.ceil(3 * radius)) + _FINE
    axis = np.arange(-reach, reach + 1)
    thickness = np.sqrt(np.maximum(1 - (axis[:, None] ** 2 + axis[None, :] ** 2) / radius**2, 0))
    blurred = np.asarray(cv2.GaussianBlur(thickness, (0, 0), 2 * radius * BLUR, borderType=cv2.BORDER_CONSTANT))
    blurred[np.hypot(axis[:, None], axis[None, :]) > 1.5 * radius] = 0
    # From the ball's own fine pixels to the film's.
    motion = np.array(
        [
            [1 / _FINE, 0, opacity.column * edge - 0.5 - reach / _FINE],
            [0, 1 / _FINE, opacity.row * edge - 0.5 - reach / _FINE],
        ]
    )
    smooth = cv2.GaussianBlur(blurred, (0, 0), _FINE / 3)  # a pixel sees the mean over its area
    placed = cv2.warpAffine(smooth / smooth.max(), motion, (edge, edge), flags=cv2.INTER_LINEAR)
    return np.asarray(placed, dtype=np.float64)


def place(lungs: Mask, size: float, contrast: float, rng: np.random.Generator) -> Opacity:
    """An opacity at a random place in the lungs.

    Parameters
    ----------
    lungs : numpy.ndarray
        bool, square: `training.evaluation.chest.lung_fields` of the film.
    size, contrast : float
        As in `Opacity`.
    rng : numpy.random.Generator
        The only source of chance.

    Returns
    -------
    Opacity
        Its ball lies in the lung fields but for a quarter of its radius; where no lung has room for that, its centre.
    """
    edge = lungs.shape[0]
    reach = int(size * edge / 2 * (1 - _OVERLAP))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    room = np.argwhere(cv2.erode(lungs.astype(np.uint8), np.asarray(disc)))
    row, column = rng.choice(room if len(room) else np.argwhere(lungs)) + rng.random(2)
    return Opacity(row=float(row / edge), column=float(column / edge), size=size, contrast=contrast)


def plant_all(
    films: NDArray[np.uint8], lungs: Sequence[Mask], size: float, contrast: float, seed: int
) -> tuple[NDArray[np.uint8], Sequence[Opacity]]:
    """Plant one opacity in each film.

    Parameters
    ----------
    films : numpy.ndarray
        uint8, shape ``(n, edge, edge)``; clear films.
    lungs : sequence of numpy.ndarray
        As in `place`, one for each film.
    size, contrast : float
        As in `Opacity`.
    seed : int
        The same seed gives the same films; the place in one film does not depend on the contrast.

    Returns
    -------
    planted : numpy.ndarray
        Of the shape of `films`.
    opacities : sequence of Opacity
    """
    opacities = [
        place(mask, size, contrast, np.random.default_rng((seed, number))) for number, mask in enumerate(lungs)
    ]
    return np.stack([plant(film, one) for film, one in zip(films, opacities, strict=True)]), opacities
