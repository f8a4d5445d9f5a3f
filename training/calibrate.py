"""From raw logits to a decision: calibration, operating point, evidence threshold, unusual-image gate, figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from clearfilm.errors import TrainingError
from clearfilm.vision.bundle import Calibration, FeatureGate, Metric, OperatingPoint
from clearfilm.vision.unusual import distances, fit_subspace
from training.evaluation.intervals import effective, exact
from training.ranking import area

GATE_COMPONENTS, GATE_QUANTILE = 8, 0.995
BOOTSTRAP = 2000
INTERVAL = (0.025, 0.975)


def fit_calibration(logits: NDArray[np.float64], labels: NDArray[np.float32]) -> Calibration:
    """Platt scaling of calibration films.

    J. Platt, Probabilistic outputs for support vector machines, 1999: with his smoothed targets, so that films
    which happen to be separated perfectly do not give an infinite slope.

    Raises
    ------
    TrainingError
        If higher logits do not go with abnormal films.
    """
    abnormal = int(labels.sum())
    normal = len(labels) - abnormal
    high, low = (abnormal + 1) / (abnormal + 2), 1 / (normal + 2)
    targets = np.where(labels == 1, high, low)
    # A target between 0 and 1 is a film of either label with that weight.
    inputs = np.concatenate([logits, logits])[:, None]
    either = np.repeat([1.0, 0.0], len(logits))
    scale = max(float(logits.std()), 1e-9)
    platt = LogisticRegression(C=np.inf, max_iter=1000)
    platt.fit(inputs / scale, either, sample_weight=np.concatenate([targets, 1 - targets]))
    slope = float(platt.coef_[0, 0]) / scale
    if not slope > 0 or not math.isfinite(slope):
        raise TrainingError(
            f"the network has learned nothing: on {normal} normal and {abnormal} abnormal calibration films its "
            "scores are no better than chance; more films, more epochs or other starting weights are needed"
        )
    return Calibration(slope=slope, intercept=float(platt.intercept_[0]), films=len(logits))


def fewest_abnormal_patients(sensitivity: float, confidence: float) -> int:
    """Abnormal calibration patients from which a guarantee can be given: none of them may be missed then."""
    return math.ceil(math.log(1 - confidence) / math.log(sensitivity))


def allowed_misses(patients: int, sensitivity: float, confidence: float) -> int:
    """Most calibration patients below the threshold; -1 if there are too few patients for the guarantee.

    Exact binomial rule: if the true sensitivity were no better than `sensitivity`, so few misses would have a
    probability of at most ``1 - confidence``.
    """
    misses = int(binom.ppf(1 - confidence, patients, 1 - sensitivity))
    if binom.cdf(misses, patients, 1 - sensitivity) > 1 - confidence:
        misses -= 1
    return misses


def fit_operating_point(
    scores: NDArray[np.float64],
    labels: NDArray[np.float32],
    patients: Sequence[str],
    sensitivities: Sequence[float],
    confidence: float,
) -> OperatingPoint | None:
    """Threshold with the first guarantee that the calibration patients are enough for.

    Parameters
    ----------
    scores : numpy.ndarray
        Calibrated probabilities of the calibration films.
    labels : numpy.ndarray
    patients : sequence of str
        One abnormal film counts for each: the first.
    sensitivities : sequence of float
        In order of preference.
    confidence : float

    Returns
    -------
    OperatingPoint or None
        None if no guarantee can be given.
    """
    first: dict[str, float] = {}
    for score, label, patient in zip(scores, labels, patients, strict=True):
        if label:
            first.setdefault(patient, float(score))
    ordered = sorted(first.values())
    for sensitivity in sensitivities:
        misses = allowed_misses(len(ordered), sensitivity, confidence)
        if misses >= 0:
            return OperatingPoint(
                threshold=ordered[misses],
                sensitivity=sensitivity,
                confidence=confidence,
                abnormal_patients=len(ordered),
                misses=misses,
            )
    return None


def fit_evidence_threshold(peaks: NDArray[np.float32], contour_share: float) -> float:
    """Log-odds of one cell that at most `contour_share` of normal films reach.

    Parameters
    ----------
    peaks : numpy.ndarray
        Largest cell of each normal calibration film's map, in calibrated log-odds.
    contour_share : float
    """
    ordered = np.sort(peaks)[::-1]
    allowed = int(contour_share * len(ordered))
    # In float32, as maps are compared with it.
    above = ordered[allowed - 1] if allowed else np.nextafter(ordered[0], np.float32(np.inf))
    threshold = float(above + ordered[allowed]) / 2 if allowed else float(above)
    return max(threshold, 1e-3)  # a cell that speaks for no finding is never drawn


def fit_gate(
    known: NDArray[np.float32], held: NDArray[np.float32], margin: float
) -> tuple[FeatureGate, dict[str, NDArray[np.float32]]]:
    """The unusual-image gate: subspace of training films, threshold from films that it was not fitted on.

    Parameters
    ----------
    known, held : numpy.ndarray
        Features as in `clearfilm.vision.network.Forward`.
    margin : float
        Room for films of other devices.
    """
    subspace = fit_subspace(known, min(GATE_COMPONENTS, len(known) - 1))
    threshold = margin * float(np.quantile(distances(held, subspace), GATE_QUANTILE))
    return FeatureGate(threshold=threshold, quantile=GATE_QUANTILE, margin=margin), subspace


def area_metric(name: str, labels: NDArray[np.float32], scores: NDArray[np.float64], patients: Sequence[str]) -> Metric:
    """AUC with a bootstrap interval over patients; both labels must occur."""
    rng = np.random.default_rng(0)
    _, owners = np.unique(np.array(patients), return_inverse=True)
    members = [np.flatnonzero(owners == owner) for owner in range(owners.max() + 1)]
    drawn = []
    for _ in range(BOOTSTRAP):
        places = np.concatenate([members[owner] for owner in rng.integers(0, len(members), len(members))])
        if 0 < labels[places].sum() < len(places):
            drawn.append(area(labels[places], scores[places]))
    value = area(labels, scores)
    low, high = np.quantile(drawn or [value], INTERVAL)
    abnormal = int(labels.sum())
    return _metric(name, value, float(low), float(high), len(labels) - abnormal, abnormal)


def share_metric(name: str, hits: NDArray[np.bool_], patients: Sequence[str], *, normal: bool) -> Metric:
    """A proportion with its Clopper-Pearson interval, see `training.evaluation.intervals`; there must be films."""
    low, high = exact(*effective(hits, patients))
    films = len(hits)
    return _metric(name, float(hits.mean()), low, high, films if normal else 0, 0 if normal else films)


def _metric(name: str, value: float, low: float, high: float, normal: int, abnormal: int) -> Metric:
    figures = {"value": value, "low": low, "high": high}
    return Metric(name=name, normal=normal, abnormal=abnormal, **{key: round(x, 4) for key, x in figures.items()})
