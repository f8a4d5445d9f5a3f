"""What reading some studies later does to everybody's wait, on a site's own arrivals."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clearfilm.waiting import waits

GROUPS: Final = ("all", "abnormal", "tagged", "missed abnormal")
ORDERS: Final = ("first come", "triage", "triage with the limit")

_Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Studies as they came in.

    Parameters
    ----------
    arrived_seconds : numpy.ndarray
        Shape ``(n,)``, float64, from any beginning.
    tagged : numpy.ndarray
        Shape ``(n,)``, bool: would be read later.
    abnormal : numpy.ndarray or None
        Shape ``(n,)``, bool: has a finding, by report; None: not known.
    limit_seconds : numpy.ndarray
        Shape ``(n,)``, float64: longest wait before a tagged study returns.
    """

    arrived_seconds: NDArray[np.float64]
    tagged: _Flags
    abnormal: _Flags | None
    limit_seconds: NDArray[np.float64]


@dataclass(frozen=True)
class Wait:
    """Waits of a group of studies, seconds; NaN if there is none."""

    studies: int
    mean: float
    p95: float
    maximum: float


@dataclass(frozen=True)
class Simulation:
    """Waits by group, then by order."""

    utilisation: float  # share of the time in which readers read, from first to last arrival
    waits: dict[str, dict[str, Wait]]


def simulate(arrivals: Arrivals, *, readers: int, reading_seconds: float, seed: int = 0) -> Simulation:
    """Replay arrivals in three orders, each study with the same reading time in all of them.

    Parameters
    ----------
    arrivals : Arrivals
        At least one.
    readers : int
        At any time of the day.
    reading_seconds : float
        Mean of the reading times, which are drawn from an exponential distribution.
    seed : int
        Of the reading times.

    Returns
    -------
    Simulation

    Raises
    ------
    ValueError
        As `clearfilm.waiting.waits` does.
    """
    arrived, number = arrivals.arrived_seconds, len(arrivals.arrived_seconds)
    # Two numbers: arrivals that somebody drew with the same seed must not go along with the reading times.
    service = np.random.default_rng([seed, 1]).exponential(reading_seconds, number)
    orders = {
        "first come": waits(arrived, service, False, readers=readers),
        "triage": waits(arrived, service, arrivals.tagged, readers=readers),
        "triage with the limit": waits(
            arrived, service, arrivals.tagged, readers=readers, limit_seconds=arrivals.limit_seconds
        ),
    }
    groups = {"all": np.ones(number, dtype=np.bool_), "tagged": arrivals.tagged}
    if arrivals.abnormal is not None:
        groups |= {"abnormal": arrivals.abnormal, "missed abnormal": arrivals.abnormal & arrivals.tagged}
    span = float(np.ptp(arrived)) * readers
    return Simulation(
        utilisation=float(service.sum()) / span if span > 0 else math.inf,
        waits={
            group: {order: _summary(found[groups[group]]) for order, found in orders.items()}
            for group in GROUPS
            if group in groups
        },
    )


def _summary(found: NDArray[np.float64]) -> Wait:
    if not len(found):
        return Wait(0, math.nan, math.nan, math.nan)
    return Wait(len(found), float(found.mean()), float(np.quantile(found, 0.95)), float(found.max()))
