"""Figures of merit on films with labels and calibrated scores. Labels: 1 abnormal, 0 normal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.float32]
Scores = NDArray[np.float64]

PAPER_THRESHOLD: Final = 0.5
BINS: Final = 15
_SMALLEST: Final = 1e-12
_NEWTON_STEPS: Final = 25


@dataclass(frozen=True)
class Confusion:
    """Films by label and answer."""

    found: int
    missed: int
    cleared: int
    alarms: int

    @property
    def precision(self) -> tuple[float, float]:
        """Of those called no finding, and of those called finding; nan where none was called so."""
        return _share(self.cleared, self.cleared + self.missed), _share(self.found, self.found + self.alarms)

    @property
    def recall(self) -> tuple[float, float]:
        """Of the normal films (specificity), and of the abnormal ones (sensitivity)."""
        return _share(self.cleared, self.cleared + self.alarms), _share(self.found, self.found + self.missed)

    @property
    def f1(self) -> tuple[float, float]:
        """Harmonic mean of precision and recall: no finding, finding."""
        errors = self.missed + self.alarms
        return _share(2 * self.cleared, 2 * self.cleared + errors), _share(2 * self.found, 2 * self.found + errors)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def confusion(labels: Labels, scores: Scores, threshold: float) -> Confusion:
    """Count films; one at the threshold has a finding, as in the worker."""
    called, abnormal = scores >= threshold, labels == 1
    return Confusion(
        found=int((called & abnormal).sum()),
        missed=int((~called & abnormal).sum()),
        cleared=int((~called & ~abnormal).sum()),
        alarms=int((called & ~abnormal).sum()),
    )


def threshold_for(labels: Labels, scores: Scores, sensitivity: float) -> float:
    """The highest threshold at which at least `sensitivity` of these very abnormal films are found."""
    abnormal = np.sort(scores[labels == 1])
    found = math.ceil(sensitivity * len(abnormal) - 1e-9)  # 0.99 × 300 is a little more than 297 in binary
    return float(abnormal[len(abnormal) - max(found, 1)])


def specificity_at(labels: Labels, scores: Scores, sensitivity: float) -> float:
    """Share of normal films below `threshold_for`."""
    return float(np.mean(scores[labels == 0] < threshold_for(labels, scores, sensitivity)))


def brier(labels: Labels, scores: Scores) -> float:
    """Mean squared difference of probability and label (G. W. Brier, 1950)."""
    return float(np.mean((scores - labels) ** 2))


def log_loss(labels: Labels, scores: Scores) -> float:
    """Mean negative log likelihood, nats."""
    inside = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    return float(-np.mean(np.where(labels == 1, np.log(inside), np.log1p(-inside))))


@dataclass(frozen=True)
class Bin:
    """Films of similar score."""

    films: int
    score: float
    share: float
    """Of abnormal films."""


def reliability(labels: Labels, scores: Scores, *, equal_mass: bool = True, bins: int = BINS) -> list[Bin]:
    """Bins of as many films each, or of equal width; empty ones are left out."""
    order = np.argsort(scores, kind="stable")
    if equal_mass:
        parts = np.array_split(order, min(bins, len(order)))
    else:
        place = np.minimum((scores[order] * bins).astype(np.int64), bins - 1)
        parts = np.split(order, np.searchsorted(place, np.arange(1, bins)))
    return [
        Bin(len(part), float(scores[part].mean()), float(labels[part].mean(dtype=np.float64)))
        for part in parts
        if len(part)
    ]


def calibration_error(labels: Labels, scores: Scores, *, equal_mass: bool = True, bins: int = BINS) -> float:
    """Expected calibration error: mean over films of the gap between score and share of their bin.

    Biased upward where films are few (R. Roelofs et al., AISTATS 2022).
    """
    found = reliability(labels, scores, equal_mass=equal_mass, bins=bins)
    return sum(one.films * abs(one.score - one.share) for one in found) / len(labels)


def calibration_line(labels: Labels, scores: Scores) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of labels on log-odds (D. R. Cox, 1958).

    Returns
    -------
    tuple of float
        1 and 0 is perfect; slope below 1: scores too extreme. Nan where the regression has no finite solution,
        because the labels are separated perfectly or all scores are one.
    """
    inside = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    logits = np.log(inside) - np.log1p(-inside)
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    line: NDArray[Any] = np.array([1.0, 0.0])
    for _ in range(_NEWTON_STEPS):
        expected = 1 / (1 + np.exp(-np.clip(design @ line, -500, 500)))
        information = design.T @ (design * (expected * (1 - expected))[:, None])
        if not np.linalg.cond(information) < 1e12:
            break
        step = np.linalg.solve(information, design.T @ (labels - expected))
        line += step
        if np.abs(step).max() < 1e-9:
            return float(line[0]), float(line[1])
    return math.nan, math.nan


def roc(labels: Labels, scores: Scores) -> NDArray[np.float64]:
    """Corners of the ROC curve: shape ``(k, 2)``, false alarms and sensitivity, from (0, 0) to (1, 1)."""
    called, found = _called(labels, scores)
    return np.stack([(called - found) / (labels == 0).sum(), found / (labels == 1).sum()], axis=1)


def precision_recall(labels: Labels, scores: Scores) -> NDArray[np.float64]:
    """Corners of the precision-recall curve of "finding": shape ``(k, 2)``, recall and precision."""
    called, found = (part[1:] for part in _called(labels, scores))
    return np.stack([found / (labels == 1).sum(), found / called], axis=1)


def average_precision(labels: Labels, scores: Scores) -> float:
    """Area under the precision-recall curve, in steps."""
    curve = precision_recall(labels, scores)
    return float(np.sum(np.diff(curve[:, 0], prepend=0) * curve[:, 1]))


def _called(labels: Labels, scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each threshold, highest first and none before: films called abnormal, and those of them that are."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    found = np.cumsum(labels[order], dtype=np.float64)[last]
    return np.append(0.0, last + 1.0), np.append(0.0, found)


def predictive_value(sensitivity: float, specificity: float, prevalence: float) -> float:
    """Share of truly normal films among those called so (negative predictive value), by Bayes."""
    cleared, missed = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return cleared / (cleared + missed) if cleared + missed else math.nan
