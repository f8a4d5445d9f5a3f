"""How many studies with a finding were tagged for later, and when that is reason to stop.

The miss rate is the share of studies with a finding, by the radiologist's report, that the policy tagged. It is
counted twice: over studies whose reader had seen no answer (stages off and shadow, and the blind share), which is
unbiased, and over all studies, which is biased towards agreement but has far more of them.

Which bound is an alarm. The count is looked at again and again. An interval that is exact at one look, such as
Clopper and Pearson's, passes any target sooner or later by chance alone if it is looked at for ever; and its
upper bound lies above every target until hundreds of findings have come in, so that it would stop each policy on
its first day. The alarm therefore asks for evidence that the rate is *above* the target, in a form that may be
looked at after every report: H. Robbins' mixture of likelihood ratios (Ann. Math. Statist. 41, 1397, 1970). If
the rate is at most the target, the chance that this lower bound ever passes it, during the whole period, is at
most 1 - confidence (J. Ville's inequality). Silence is no proof of safety: for that look at the upper bound of the
exact interval, which is shown beside it and recorded with each step up.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from clearfilm.errors import PolicyError

SHOWN_CONFIDENCE: Final = 0.95
# Prior of the mixture, a Beta distribution; it bears on power only, not on the guarantee.
_A: Final = 0.5
_B: Final = 0.5
_HALVINGS: Final = 60


@dataclass(frozen=True)
class Tally:
    """Studies with a finding, and those of them that were tagged for later."""

    findings: int = 0
    missed: int = 0

    @classmethod
    def of(cls, pairs: Iterable[tuple[bool, bool]]) -> "Tally":
        """Count pairs (tagged, outcome); outcome: the study has a finding, by report or verdict."""
        found = [tagged for tagged, outcome in pairs if outcome]
        return cls(len(found), sum(found))


@dataclass(frozen=True)
class Figures:
    """What a tally says of the miss rate; with no findings nothing: 0 to 1."""

    findings: int
    missed: int
    rate: float | None
    low: float  # exact interval at one look, 95 %
    high: float
    running_low: float  # may be looked at after every report


@dataclass(frozen=True)
class Assessment:
    """Both counts against the target."""

    target: float
    unseen: Figures
    everything: Figures
    alarm: str | None  # in plain words; None: no reason to stop


def assess(unseen: Tally, everything: Tally, *, target: float, confidence: float) -> Assessment:
    """Compare both counts with the target.

    Parameters
    ----------
    unseen : Tally
        Of studies whose reader had seen no answer.
    everything : Tally
        Of all studies, these among them.
    target : float
        Highest miss rate that is accepted, between 0 and 1.
    confidence : float
        Of the alarm, over all looks at both counts together.

    Returns
    -------
    Assessment
    """
    each = 1 - (1 - confidence) / 2
    figures = [_figures(tally, each) for tally in (unseen, everything)]
    names = ("studies read without an answer", "all studies")
    alarms = [
        f"{one.missed} of {one.findings} with a finding were tagged among {name}: "
        f"more than {one.running_low:.1%}, the target is {target:.1%}"
        for one, name in zip(figures, names, strict=True)
        if one.running_low > target
    ]
    return Assessment(target, figures[0], figures[1], alarms[0] if alarms else None)


def exact_interval(tally: Tally, confidence: float = SHOWN_CONFIDENCE) -> tuple[float, float]:
    """Interval of C. J. Clopper and E. S. Pearson (Biometrika 26, 404, 1934) for the miss rate; 0 to 1 without data."""
    # Imported here: 0.2 s that only this figure is worth.
    from scipy.special import betaincinv

    missed, caught, tail = tally.missed, tally.findings - tally.missed, (1 - confidence) / 2
    low = float(betaincinv(missed, caught + 1, tail)) if missed else 0.0
    high = float(betaincinv(missed + 1, caught, 1 - tail)) if caught else 1.0
    return low, high


def running_lower_bound(tally: Tally, confidence: float) -> float:
    """Lower bound of the miss rate that holds at every look at once; 0 while there is too little to tell.

    Parameters
    ----------
    tally : Tally
    confidence : float
        That the bound never lies above the true rate, however often it is looked at.

    Returns
    -------
    float
        Largest rate, below the observed one, against which the evidence is 1 / (1 - confidence).
    """
    needed = -math.log(1 - confidence)
    if not tally.missed:
        return 0.0
    low, high = 0.0, tally.missed / tally.findings
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if evidence_against(middle, tally) >= needed:
            low = middle
        else:
            high = middle
    return low


def evidence_against(rate: float, tally: Tally) -> float:
    """Logarithm of the mixture's likelihood over that of a rate between 0 and 1."""
    missed, caught = tally.missed, tally.findings - tally.missed
    mixture = _log_beta(_A + missed, _B + caught) - _log_beta(_A, _B)
    if (missed and rate <= 0) or (caught and rate >= 1):
        return math.inf
    return mixture - (missed * math.log(rate) if missed else 0.0) - (caught * math.log1p(-rate) if caught else 0.0)


def target_of(configured: float | None, guaranteed_sensitivity: float | None) -> float:
    """The target in force: the configured one, otherwise what the bundle's guarantee leaves. Raises PolicyError."""
    if configured is not None:
        return configured
    if guaranteed_sensitivity is None:
        raise PolicyError("policy.target_miss_rate is null, and the active bundle guarantees no sensitivity")
    return 1 - guaranteed_sensitivity


def _figures(tally: Tally, confidence: float) -> Figures:
    low, high = exact_interval(tally)
    rate = tally.missed / tally.findings if tally.findings else None
    return Figures(tally.findings, tally.missed, rate, low, high, running_lower_bound(tally, confidence))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
