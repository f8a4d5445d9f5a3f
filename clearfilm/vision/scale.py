"""The one colour scale of evidence, for films in results and on pages: a colour always means the same."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Log-odds from the evidence threshold, where drawing begins, to the top of the colour scale.
EVIDENCE_SPAN: Final = 8.0


class Colour(NamedTuple):
    """Red, green, blue, 0 to 255."""

    red: int
    green: int
    blue: int


HALO: Final = Colour(12, 10, 14)
CONTOUR: Final = Colour(255, 206, 120)
WASH: Final = 0.2
"""Share of the colour inside contours."""
# Purple to pale yellow, lightness rising evenly: readable in print and with every kind of colour blindness.
_RAMP_ANCHORS: Final = (
    Colour(116, 32, 112),
    Colour(178, 44, 94),
    Colour(226, 82, 56),
    Colour(250, 142, 40),
    Colour(254, 204, 84),
    Colour(252, 246, 190),
)


def ramp() -> NDArray[np.uint8]:
    """The colour scale: shape ``(256, 3)``, uint8, RGB, from the evidence threshold to the ceiling."""
    places = np.linspace(0, 255, len(_RAMP_ANCHORS))
    channels = [np.interp(np.arange(256), places, channel) for channel in zip(*_RAMP_ANCHORS, strict=True)]
    return np.stack(channels, axis=1).round().astype(np.uint8)
