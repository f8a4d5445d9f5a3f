"""Pixels of a stored film, from Pixel Data to the network's input."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

PREPROCESSING_ID: Final = "percentile-stretch-1"


def network_input(display: NDArray[Any], edge: int) -> NDArray[np.uint8]:
    """Window a display image by its percentiles and stretch it to the network's square.

    Parameters
    ----------
    display : numpy.ndarray
        Shape ``(rows, columns)``, uint8, uint16 or float32; bright = dense (bone white).
    edge : int
        Side of the result in pixels.

    Returns
    -------
    numpy.ndarray
        uint8, shape ``(edge, edge)``; 0 at or below the 0.5 % percentile, 255 at or above the 99.5 % one.
    """
    step = max(1, -(-max(display.shape) // 512))
    low, high = np.percentile(display[::step, ::step], (0.5, 99.5))
    scaled = (display.astype(np.float32) - np.float32(low)) * np.float32(255.0 / max(high - low, 1e-6))
    squared = cv2.resize(np.clip(scaled, 0, 255), (edge, edge), interpolation=cv2.INTER_AREA)
    return np.rint(squared).astype(np.uint8)
