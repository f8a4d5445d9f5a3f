"""When will the disk be full?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

SHORTEST: Final = timedelta(days=1)
"""Less than this tells nothing: a day has busy and quiet hours."""


def days_left(samples: Sequence[tuple[datetime, float]], mark: float) -> float | None:
    """Days until free space falls to `mark`, by the straight line through the samples (least squares).

    Parameters
    ----------
    samples : sequence of (datetime.datetime, float)
        Times and free bytes, oldest first.
    mark : float
        Bytes.

    Returns
    -------
    float or None
        Not negative; None: space does not shrink, or too little time is known.
    """
    if len(samples) < 3 or samples[-1][0] - samples[0][0] < SHORTEST:
        return None
    days = [(at - samples[0][0]) / timedelta(days=1) for at, _ in samples]
    free = [value for _, value in samples]
    middle, mean = sum(days) / len(days), sum(free) / len(free)
    spread = sum((day - middle) ** 2 for day in days)
    slope = sum((day - middle) * (value - mean) for day, value in zip(days, free, strict=True)) / spread
    if slope >= 0:
        return None
    return max(0.0, (mark - free[-1]) / slope)
