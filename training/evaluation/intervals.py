"""Intervals of 95 %: exact ones of shares, by bootstrap over patients of everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Interval = tuple[float, float]
REPLICATES: Final = 2000
_SEED: Final = 20_190_952
_TAILS: Final = (0.025, 0.975)


def exact(hits: float, number: float) -> Interval:
    """Of a share (C. J. Clopper and E. S. Pearson, 1934); (0, 1) of nothing."""
    low = float(beta.ppf(_TAILS[0], hits, number - hits + 1)) if hits else 0.0
    high = float(beta.ppf(_TAILS[1], hits + 1, number - hits)) if hits < number else 1.0
    return low, high


def upper_bound(hits: float, number: float) -> float:
    """Exact one-sided 95 % bound of a share: about 3 / n for none in n; 1 of nothing."""
    return float(beta.ppf(0.95, hits + 1, number - hits)) if hits < number else 1.0


def effective(hits: NDArray[np.bool_], patients: Sequence[str]) -> tuple[float, float]:
    """Hits and films for `exact` and `upper_bound`, as few as they tell where patients have several films.

    Films of one patient resemble each other, and so are worth less than as many of several patients (E. L. Korn and
    B. I. Graubard, Survey Methodology 1998). With one film each these are the plain counts.

    Parameters
    ----------
    hits : numpy.ndarray
        bool, one for each film.
    patients : sequence of str
        One for each film.
    """
    films = len(hits)
    _, owners = np.unique(np.array(patients), return_inverse=True)
    number = len(set(owners.tolist()))
    if number == films:
        return int(hits.sum()), films
    share = float(hits.mean())
    worth = films / number  # films of a patient, if all are hits or none is
    if 0 < share < 1 and number > 1:
        sums = np.bincount(owners, hits - share)
        worth = float((sums**2).sum()) / (films * share * (1 - share)) * number / (number - 1)
    enough = films / max(worth, 1.0)
    return share * enough, enough


class Replicates:
    """Bootstrap samples of whole patients: films of one patient come and go together.

    Parameters
    ----------
    patients : sequence of str
        One for each film.
    labels : numpy.ndarray
        1 abnormal, 0 normal; samples without both are not handed out.
    count : int
        Of samples.
    """

    def __init__(self, patients: Sequence[str], labels: NDArray[np.float32], count: int = REPLICATES) -> None:
        _, self._owners = np.unique(np.array(patients), return_inverse=True)
        self._labels = labels
        self._count = count

    def __iter__(self) -> Iterator[NDArray[np.intp]]:
        """Places of the films of each sample, in ascending order; the same ones every time."""
        rng = np.random.default_rng(_SEED)
        patients = int(self._owners.max()) + 1
        places = np.arange(len(self._owners))
        for _ in range(self._count):
            times = np.bincount(rng.integers(0, patients, patients), minlength=patients)
            chosen = np.repeat(places, times[self._owners])
            if 0 < self._labels[chosen].sum() < len(chosen):
                yield chosen

    def intervals(self, measure: Callable[[NDArray[np.intp]], NDArray[np.float64]]) -> NDArray[np.float64]:
        """Percentile intervals of several figures at once.

        Parameters
        ----------
        measure : callable
            Places of films to figures, shape ``(k,)``; nan where one is not defined.

        Returns
        -------
        numpy.ndarray
            Shape ``(k, 2)``: low, high; nan where a figure never was defined.
        """
        drawn = np.array([measure(places) for places in self])
        found: NDArray[Any] = np.full((drawn.shape[-1], 2), np.nan)
        for place, values in enumerate(drawn.T):
            defined = values[np.isfinite(values)]
            if len(defined):
                found[place] = np.quantile(defined, _TAILS)
        return found
