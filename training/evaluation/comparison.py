"""The same films read by two bundles, each at its own operating point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearfilm.evaluation import Comparison, Group
from training.evaluation import delong, groups
from training.evaluation.groups import FEW, KEYS, Sample
from training.evaluation.intervals import Replicates
from training.evaluation.reading import Answers
from training.evaluation.severity import Severity
from training.ranking import area


@dataclass(frozen=True)
class Duel:
    """A comparison with what stands beside it in the report."""

    comparison: Comparison
    other: Group


def compare(sample: Sample, ours: Answers, theirs: Answers, severities: Sequence[Severity | None], digest: str) -> Duel:
    """Compare with another bundle.

    Parameters
    ----------
    sample : Sample
        Both labels must occur.
    ours, theirs : Answers
        On the same films.
    severities : sequence of str or None
        Of the abnormal films.
    digest : str
        Of the other bundle.
    """
    labels = sample.labels
    area_difference = delong.paired(labels, ours.scores, theirs.scores)
    normal = labels == 0
    gain = ours.below.astype(np.float64) - theirs.below

    def figures(places: np.ndarray[tuple[int], np.dtype[np.intp]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        chosen = labels[places]
        return np.array(
            [
                area(chosen, ours.scores[places]) - area(chosen, theirs.scores[places]),
                gain[places][chosen == 0].mean(),
            ]
        )

    spread = Replicates(sample.patients, labels).intervals(figures)
    losses = _losses(sample, ours, theirs)
    decide = ours.threshold is not None and theirs.threshold is not None
    new = [
        film.sha256
        for film, severity, we, they in zip(sample.films, severities, ours.below, theirs.below, strict=True)
        if film.abnormal and severity == "critical" and we and not they
    ]
    comparison = Comparison(
        bundle_digest=digest,
        auc_difference=area_difference.value,
        auc_interval=(area_difference.low, area_difference.high),
        auc_interval_by_patient=(float(spread[0, 0]), float(spread[0, 1])),
        p_value=area_difference.p_value,
        specificity_difference=float(gain[normal].mean()) if decide else None,
        specificity_interval=(float(spread[1, 0]), float(spread[1, 1])) if decide else None,
        new_critical_misses=tuple(new),
        critical=sum(severity == "critical" for severity in severities),
        largest_group_loss=max([0.0, *losses]),
        groups=len(losses),
    )
    return Duel(comparison, groups.measure(sample, theirs))


def _losses(sample: Sample, ours: Answers, theirs: Answers) -> list[float]:
    """Fall of sensitivity in each group with at least `FEW` abnormal films."""
    fall = ours.below.astype(np.float64) - theirs.below  # 1: newly missed, -1: newly found
    losses = []
    for key in KEYS:
        for chosen in sample.members(key).values():
            abnormal = chosen & (sample.labels == 1)
            if abnormal.sum() >= FEW:
                losses.append(float(fall[abnormal].mean()))
    return losses
