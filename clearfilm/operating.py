"""Where the operating point could be, and what each place would cost, by a bundle's calibration films. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from clearfilm.errors import BundleError

MOST_CHOICES: Final = 60
# A point that is only sure to find less than this is no choice.
LOWEST_BOUND: Final = 0.5
_HALVINGS: Final = 50


@dataclass(frozen=True)
class CalibrationScores:
    """What a bundle says of its calibration films, in the order in which its own operating point was fitted.

    Parameters
    ----------
    scores : tuple of float
        Calibrated probabilities.
    abnormal : tuple of bool
    patients : tuple of int
        Numbers without meaning outside this list.
    """

    scores: tuple[float, ...]
    abnormal: tuple[bool, ...]
    patients: tuple[int, ...]

    def dump(self) -> bytes:
        """The same scores give the same bytes."""
        content = {
            "format": 1,
            "scores": [round(score, 6) for score in self.scores],
            "abnormal": [int(label) for label in self.abnormal],
            "patients": list(self.patients),
        }
        return (json.dumps(content, sort_keys=True) + "\n").encode()

    @classmethod
    def load(cls, content: bytes) -> CalibrationScores:
        """Raises BundleError if the content is none."""
        try:
            found: dict[str, Any] = json.loads(content)
            scores = tuple(float(score) for score in found["scores"])
            abnormal = tuple(bool(label) for label in found["abnormal"])
            patients = tuple(int(number) for number in found["patients"])
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError("the calibration scores cannot be read") from error
        if not len(scores) == len(abnormal) == len(patients) or not all(0 <= score <= 1 for score in scores):
            raise BundleError("the calibration scores make no sense")
        return cls(scores, abnormal, patients)

    @property
    def share_abnormal(self) -> float:
        """Of films; 0 without films."""
        return sum(self.abnormal) / len(self.abnormal) if self.abnormal else 0.0


@dataclass(frozen=True)
class Choice:
    """One place for the operating point.

    Parameters
    ----------
    misses : int
        Abnormal calibration patients below it.
    patients : int
        Abnormal calibration patients.
    threshold : float
        A film at or above it has a significant finding.
    sensitivity : float
        Lower bound at the confidence that was asked for.
    ruled_out : float
        Share of normal calibration films below it.
    """

    misses: int
    patients: int
    threshold: float
    sensitivity: float
    ruled_out: float

    def ruled_out_of(self, studies: int, share_abnormal: float) -> float:
        """Of so many studies, those that would be below."""
        return studies * ((1 - share_abnormal) * self.ruled_out + share_abnormal * self.misses / self.patients)

    def missed_of(self, studies: int, share_abnormal: float) -> float:
        """Of these, with a finding, as on the calibration films."""
        return studies * share_abnormal * self.misses / self.patients

    def missed_at_most(self, studies: int, share_abnormal: float) -> float:
        """The same at the bound."""
        return studies * share_abnormal * (1 - self.sensitivity)


def choices(found: CalibrationScores, confidence: float) -> list[Choice]:
    """Places for the operating point, the most careful one first.

    Parameters
    ----------
    found : CalibrationScores
        One abnormal film counts for each patient: the first.
    confidence : float
        Of the bounds.
    """
    first: dict[int, float] = {}
    for score, label, patient in zip(found.scores, found.abnormal, found.patients, strict=True):
        if label:
            first.setdefault(patient, score)
    ordered = sorted(first.values())
    normal = [score for score, label in zip(found.scores, found.abnormal, strict=True) if not label]
    result: list[Choice] = []
    for misses, threshold in enumerate(ordered[:MOST_CHOICES]):
        bound = sensitivity_bound(misses, len(ordered), confidence)
        if bound < LOWEST_BOUND:
            break
        if misses and threshold == ordered[misses - 1]:
            continue  # the same place: these patients are not below it
        share = sum(score < threshold for score in normal) / len(normal) if normal else 0.0
        result.append(Choice(misses, len(ordered), threshold, bound, share))
    return result


def sensitivity_bound(misses: int, patients: int, confidence: float) -> float:
    """Lower end of the one-sided exact binomial interval (Clopper and Pearson, 1934), rounded down to 4 places."""
    low, high = 0.0, 1 - misses / patients
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # The bound is where so few misses have just the probability 1 - confidence.
        if _at_most(misses, patients, 1 - middle) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return math.floor(low * 10_000) / 10_000


def _at_most(count: int, trials: int, chance: float) -> float:
    terms: Sequence[float] = [
        math.comb(trials, hits) * chance**hits * (1 - chance) ** (trials - hits) for hits in range(count + 1)
    ]
    return math.fsum(terms)
