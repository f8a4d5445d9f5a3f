"""The figures of the summary with their intervals, all from the same bootstrap samples of patients."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.evaluation import measures
from training.evaluation.groups import Sample
from training.evaluation.intervals import REPLICATES, Replicates
from training.labels.audit import Estimate
from training.ranking import area

SENSITIVITIES: Final = ("0.95", "0.98", "0.99", "0.995")


def estimate(sample: Sample, scores: NDArray[np.float64], *, count: int = REPLICATES) -> dict[str, Estimate]:
    """Every figure by name.

    Thresholds for a sensitivity are chosen anew in each bootstrap sample; intervals that keep the threshold of the
    whole would be too narrow.

    Parameters
    ----------
    sample : Sample
        Both labels must occur.
    scores : numpy.ndarray
    count : int
        Of bootstrap samples.

    Returns
    -------
    dict of str to Estimate
        Value nan where a figure is not defined.
    """
    whole = _figures(sample.labels, scores)

    def drawn(places: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.array(list(_figures(sample.labels[places], scores[places]).values()))

    spread = Replicates(sample.patients, sample.labels, count).intervals(drawn)
    return {
        name: Estimate(value, float(low), float(high))
        for (name, value), (low, high) in zip(whole.items(), spread, strict=True)
    }


def defined(found: Estimate, otherwise: Estimate) -> Estimate:
    """A figure, or what stands for it where it is not defined."""
    return found if math.isfinite(found.value) and math.isfinite(found.low) else otherwise


def _figures(labels: NDArray[np.float32], scores: NDArray[np.float64]) -> dict[str, float]:
    table = measures.confusion(labels, scores, measures.PAPER_THRESHOLD)
    slope, intercept = measures.calibration_line(labels, scores)
    found = {
        "auc": area(labels, scores),
        "average_precision": measures.average_precision(labels, scores),
        "brier": measures.brier(labels, scores),
        "log_loss": measures.log_loss(labels, scores),
        "ece": measures.calibration_error(labels, scores),
        "ece_equal_width": measures.calibration_error(labels, scores, equal_mass=False),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
    }
    for wanted in SENSITIVITIES:
        found[f"specificity_at_{wanted}"] = measures.specificity_at(labels, scores, float(wanted))
    for name, pair in (("precision", table.precision), ("recall", table.recall), ("f1", table.f1)):
        found[f"{name}_no_finding"], found[f"{name}_finding"] = pair
    return found
