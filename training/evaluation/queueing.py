"""What the model's answers do to waiting times: first come first served, triage, triage with a longest wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from clearfilm.waiting import waits
from training.evaluation.groups import Sample
from training.evaluation.reading import Answers

POLICIES: Final = ("first come, first served", "triage", "triage with a longest wait")
CLASSES: Final = ("abnormal", "missed abnormal", "cleared normal", "all")
_REPLICATES: Final = 20
_STUDIES: Final = 4000
# The reading room is empty at the start.
_WARM_UP: Final = 400
_SEED: Final = 20_190_957


@dataclass(frozen=True, eq=False)
class Traffic:
    """A reading room.

    Parameters
    ----------
    utilisation : float
        Share of their time that readers read, below 1; not used with `arrived_seconds`.
    reading_seconds : float
        Mean time for one study; exponentially distributed.
    readers : int
    limit_seconds : float
        Longest wait of a lowered study before it returns to its place.
    prevalence : float or None
        Share of abnormal studies; None: that of the test films.
    arrived_seconds : numpy.ndarray or None
        A site's own arrivals, ascending; None: arrivals at random (Poisson).
    """

    utilisation: float = 0.9
    reading_seconds: float = 120
    readers: int = 1
    limit_seconds: float = 3600
    prevalence: float | None = None
    arrived_seconds: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Wait:
    """Minutes until reading starts, of one class of studies under one policy; mean of simulated runs.

    Nan where no study of the class occurred.
    """

    policy: str
    studies: str
    mean: float
    mean_interval: tuple[float, float]
    p95: float
    longest: float


def simulate(sample: Sample, answers: Answers, traffic: Traffic) -> list[Wait]:
    """Replay a reading room with studies drawn from the test films, one film each.

    Parameters
    ----------
    sample : Sample
        Both labels must occur.
    answers : Answers
        Films below the operating point are read later, unusual ones are not.
    traffic : Traffic

    Returns
    -------
    list of Wait
        One for each of `POLICIES` and `CLASSES`.
    """
    rng = np.random.default_rng(_SEED)
    abnormal, lowered = sample.labels == 1, answers.below & ~answers.unusual
    prevalence = abnormal.mean() if traffic.prevalence is None else traffic.prevalence
    runs = [_run(rng, abnormal, lowered, float(prevalence), traffic) for _ in range(_REPLICATES)]
    found = np.array(runs) / 60  # (run, policy, class, statistic)
    return [
        _summary(policy, name, found[:, row, column])
        for row, policy in enumerate(POLICIES)
        for column, name in enumerate(CLASSES)
    ]


def _run(
    rng: np.random.Generator,
    abnormal: NDArray[np.bool_],
    lowered: NDArray[np.bool_],
    prevalence: float,
    traffic: Traffic,
) -> list[list[list[float]]]:
    if traffic.arrived_seconds is None:
        between = traffic.reading_seconds / (traffic.utilisation * traffic.readers)
        arrived = np.cumsum(rng.exponential(between, _STUDIES))
        counted = np.arange(_STUDIES) >= _WARM_UP
    else:
        arrived = traffic.arrived_seconds
        counted = np.ones(len(arrived), np.bool_)
    service = rng.exponential(traffic.reading_seconds, len(arrived))
    ill = rng.random(len(arrived)) < prevalence
    drawn = np.where(
        ill,
        rng.choice(np.flatnonzero(abnormal), len(arrived)),
        rng.choice(np.flatnonzero(~abnormal), len(arrived)),
    )
    later = lowered[drawn]
    everywhere = np.ones_like(ill)
    classes = [counted & kind for kind in (ill, ill & later, ~ill & later, everywhere)]
    table = []
    for is_lowered, limit in ((np.zeros_like(later), None), (later, None), (later, traffic.limit_seconds)):
        waited = waits(arrived, service, is_lowered, readers=traffic.readers, limit_seconds=limit)
        table.append([_statistics(waited[chosen]) for chosen in classes])
    return table


def _statistics(waited: NDArray[np.float64]) -> list[float]:
    if not len(waited):
        return [math.nan] * 3
    return [float(waited.mean()), float(np.quantile(waited, 0.95)), float(waited.max())]


def _summary(policy: str, name: str, runs: NDArray[np.float64]) -> Wait:
    runs = runs[np.isfinite(runs[:, 0])]
    if not len(runs):
        return Wait(policy, name, math.nan, (math.nan, math.nan), math.nan, math.nan)
    mean, p95, longest = (float(value) for value in runs.mean(axis=0))
    reach = (
        float(t.ppf(0.975, len(runs) - 1) * runs[:, 0].std(ddof=1) / math.sqrt(len(runs))) if len(runs) > 1 else mean
    )
    return Wait(policy, name, mean, (mean - reach, mean + reach), p95, longest)
