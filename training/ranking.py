"""How well scores rank abnormal films above normal ones: AUC, and the part of it that a triage tool uses."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SENSITIVE: Final = 0.95


def area(labels: NDArray[np.float32], scores: NDArray[np.float64]) -> float:
    """Area under the ROC curve; ties count half.

    Parameters
    ----------
    labels : numpy.ndarray
        1 abnormal, 0 normal; both must occur.
    scores : numpy.ndarray
    """
    return float(np.mean(_specificities(labels, scores)))


def partial_area(labels: NDArray[np.float32], scores: NDArray[np.float64], *, lowest: float = SENSITIVE) -> float:
    """Mean specificity over sensitivities from `lowest` to 1: what ruling out normal films is worth.

    Parameters
    ----------
    labels, scores
        As for `area`.
    lowest : float
        Sensitivity that the mean starts from.

    Returns
    -------
    float
        Between 0 and 1. It rests on the lowest-scored abnormal films only: noisy where these are few.
    """
    found = np.sort(_specificities(labels, scores))  # by abnormal film, hardest first
    share = (1 - lowest) * len(found)
    whole = int(share)
    total = found[:whole].sum() + (share - whole) * (found[whole] if whole < len(found) else 0)
    return float(total / share)


def criterion(labels: NDArray[np.float32], scores: NDArray[np.float64]) -> tuple[float, float, float]:
    """AUC, partial area, and their mean, which early stopping looks at: what is deployed, made less noisy."""
    whole, part = area(labels, scores), partial_area(labels, scores)
    return whole, part, (whole + part) / 2


def _specificities(labels: NDArray[np.float32], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each abnormal film the share of normal films that score lower."""
    normal, abnormal = np.sort(scores[labels == 0]), scores[labels == 1]
    below = np.searchsorted(normal, abnormal, side="left")
    not_above = np.searchsorted(normal, abnormal, side="right")
    shares: NDArray[np.float64] = (below + not_above) / (2 * len(normal))
    return shares
