"""Where the cells of a map look at a film.

A convolution or pooling of odd size, padded by half of it, whose stride is 2 has the middle of its output i on its
input 2 i, counted from 0 (A. Araujo et al., Computing receptive fields of convolutional neural networks, Distill
2019). ResNet has five of them one after the other, so cell i looks around pixel 32 i: not around the middle of the
i-th of the equal parts that the film could be cut into, which lies half a cell farther right and down. A map that is
merely enlarged to the film's size, as is usual, shows its evidence there.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

STRIDE: Final = 32
"""Pixels of the network's input from cell to cell; the input's edge divided by it is the number of cells."""
CENTRE: Final = 0.5 / STRIDE
"""From the film's edge to the middle of what the first cell looks at, in cells: the middle of its first pixel."""


def peak(evidence: NDArray[np.float32]) -> tuple[float, float]:
    """Where the cell with the most evidence looks, as shares of the film's height and width."""
    height, width = evidence.shape
    row, column = np.unravel_index(int(np.argmax(evidence)), evidence.shape)
    return (float(row) + CENTRE) / height, (float(column) + CENTRE) / width


def nearest_cell(row: float, column: float, cells: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the cell that looks nearest to a place, given as shares of the film's height and width."""
    height, width = cells
    return (
        min(max(round(row * height - CENTRE), 0), height - 1),
        min(max(round(column * width - CENTRE), 0), width - 1),
    )
