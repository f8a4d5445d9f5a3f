"""Variance of AUCs and their paired difference.

E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 1988; in O(n log n) by midranks: X. Sun and W. Xu, IEEE
Signal Processing Letters 2014. Takes films as independent of each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

_Z: Final = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Difference:
    """AUC of one reader minus that of another."""

    value: float
    low: float
    high: float
    p_value: float


def areas(labels: NDArray[np.float32], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUCs of several readers of the same films.

    Parameters
    ----------
    labels : numpy.ndarray
        Shape ``(n,)``: 1 abnormal, 0 normal; both must occur.
    scores : numpy.ndarray
        Shape ``(readers, n)``.

    Returns
    -------
    areas : numpy.ndarray
        Shape ``(readers,)``; ties count half.
    covariance : numpy.ndarray
        Shape ``(readers, readers)``; nan with fewer than two films of a label.
    """
    abnormal, normal = scores[:, labels == 1], scores[:, labels == 0]
    m, n = abnormal.shape[1], normal.shape[1]
    together = rankdata(np.concatenate([abnormal, normal], axis=1), axis=1)
    # For each abnormal film the share of normal ones below it, and for each normal film of abnormal ones above it.
    above = (together[:, :m] - rankdata(abnormal, axis=1)) / n
    below = 1 - (together[:, m:] - rankdata(normal, axis=1)) / m
    covariance = np.full((len(scores), len(scores)), np.nan)
    if m > 1 and n > 1:
        covariance = np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n
    return above.mean(axis=1), covariance


def interval(labels: NDArray[np.float32], scores: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of one AUC, not beyond 0 and 1."""
    found, covariance = areas(labels, scores[None, :])
    reach = _Z * math.sqrt(max(covariance[0, 0], 0)) if np.isfinite(covariance[0, 0]) else 1.0
    return max(0.0, float(found[0]) - reach), min(1.0, float(found[0]) + reach)


def paired(labels: NDArray[np.float32], one: NDArray[np.float64], other: NDArray[np.float64]) -> Difference:
    """Difference of two readers of the same films, with a two-sided p-value; 1 where they rank alike."""
    found, covariance = areas(labels, np.stack([one, other]))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return _difference(float(found[0] - found[1]), variance)


def unpaired(
    labels: NDArray[np.float32],
    one: NDArray[np.float64],
    other_labels: NDArray[np.float32],
    other: NDArray[np.float64],
) -> Difference:
    """Difference of two readers of different films."""
    first, first_variance = areas(labels, one[None, :])
    second, second_variance = areas(other_labels, other[None, :])
    return _difference(float(first[0] - second[0]), first_variance[0, 0] + second_variance[0, 0])


def _difference(value: float, variance: float) -> Difference:
    if not math.isfinite(variance):
        return Difference(value, -1.0, 1.0, 1.0)
    error = math.sqrt(max(variance, 0.0))
    if error < 1e-12:
        return Difference(value, value, value, 1.0 if abs(value) < 1e-12 else 0.0)
    return Difference(value, value - _Z * error, value + _Z * error, float(2 * norm.sf(abs(value) / error)))
