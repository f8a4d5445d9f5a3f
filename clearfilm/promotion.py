"""Promotion gates: what a bundle must show before two people may make it the active one. Pure functions, no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from clearfilm.counts import counted
from clearfilm.evaluation import SHORTCUTS, Comparison, Summary
from clearfilm.model_settings import Promotion

NOT_EVALUATED: Final = "not evaluated"
NOT_COMPARED: Final = "not compared with the active model"
NOT_MEASURED: Final = "not measured"
_SAME_FILMS: Final = "compared with the active model on the same films"
_AUC: Final = "AUC against the active model, lower end"
_SPECIFICITY: Final = "specificity against the active model, lower end"
_MISSES: Final = "critical films that the active model finds and this one misses"
_GROUPS: Final = "largest fall of sensitivity in a group"


@dataclass(frozen=True)
class ShadowStatistics:
    """Silent reading of live films by one bundle.

    Parameters
    ----------
    days : float
        Since it began without a break.
    studies : int
        Studies of which at least one film was read.
    below : int
        Of these, all films of which are below the bundle's operating point.
    reported : int
        Of these studies, those whose report says finding or no finding.
    abnormal : int
        Of these, those with a finding.
    missed : int
        Of these, those below the operating point.
    agreeing : int
        Of all studies, those on the same side as their conclusion.
    """

    days: float
    studies: int
    below: int
    reported: int
    abnormal: int
    missed: int
    agreeing: int


@dataclass(frozen=True)
class Evidence:
    """All that the gates look at.

    Parameters
    ----------
    digest : str
        Of the bundle.
    fault : str or None
        What is wrong with its files; None: they are unaltered.
    has_operating_point : bool
        Whether it can say "no significant finding" at all.
    summary : Summary or None
        Its evaluation.
    evaluation_digest : str or None
        Of that evaluation's file.
    active_digest : str or None
        The active bundle's; None: there is none.
    shadow : ShadowStatistics or None
        None: it never read silently.
    """

    digest: str
    fault: str | None
    has_operating_point: bool
    summary: Summary | None
    evaluation_digest: str | None
    active_digest: str | None
    shadow: ShadowStatistics | None


@dataclass(frozen=True)
class Gate:
    """One condition. `measured` and `wanted` are plain words for people."""

    name: str
    title: str
    passed: bool
    measured: str
    wanted: str
    waivable: bool = True


def gates(evidence: Evidence, limits: Promotion) -> tuple[Gate, ...]:
    """Check all gates.

    Parameters
    ----------
    evidence : Evidence
    limits : Promotion
        Section `promotion` of the configuration.

    Returns
    -------
    tuple of Gate
        Always all of them, in the same order.
    """
    own = evidence.summary
    if own is not None and own.identity.bundle_digest != evidence.digest:
        own = None
    return (
        *_identity(evidence),
        *_figures(own, limits),
        *_against_active(evidence, own, limits),
        *_shadow(evidence.shadow, own, limits),
    )


def fingerprint(evidence: Evidence, checked: tuple[Gate, ...]) -> str:
    """What a signature is given for: another evaluation, active bundle or outcome of a gate makes it void.

    Figures of silent reading grow with every film; they count as far as they change an outcome.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    outcomes = [[gate.name, gate.passed, gate.wanted] for gate in checked]
    content = [evidence.digest, evidence.evaluation_digest, evidence.active_digest, outcomes]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def as_json(checked: tuple[Gate, ...]) -> list[dict[str, Any]]:
    """Gates as JSON values."""
    return [asdict(gate) for gate in checked]


def _identity(evidence: Evidence) -> Iterator[Gate]:
    """Nobody can waive these."""
    yield Gate(
        "bundle",
        "files of the bundle",
        evidence.fault is None,
        evidence.fault or "unaltered",
        "unaltered",
        waivable=False,
    )
    yield Gate(
        "operating-point",
        "fitted operating point",
        evidence.has_operating_point,
        "there" if evidence.has_operating_point else "none: too few abnormal calibration patients",
        "there",
        waivable=False,
    )
    read = evidence.summary.identity.bundle_digest if evidence.summary else None
    yield Gate(
        "evaluation",
        "evaluation of this very bundle",
        read == evidence.digest,
        NOT_EVALUATED if read is None else f"of bundle {read[:12]}",
        f"of bundle {evidence.digest[:12]}",
        waivable=False,
    )


def _figures(own: Summary | None, limits: Promotion) -> Iterator[Gate]:
    """On its own test films."""
    kept_out = own is not None and own.identity.held_back
    yield Gate(
        "held-back",
        "test patients kept out of training",
        kept_out,
        NOT_EVALUATED if own is None else "kept out" if kept_out else "it may have learned from them",
        "a cohort split by patient, with the key of the training",
    )
    demonstration = own is None or own.demonstration
    yield Gate(
        "films",
        "enough test films to quote figures",
        not demonstration,
        NOT_EVALUATED if own is None else counted(own.n, "film") + (", demonstration data" if demonstration else ""),
        "no demonstration data",
    )
    point = own.operating_point if own else None
    yield Gate(
        "sensitivity",
        "sensitivity at the operating point, lower end",
        point is not None and point.sensitivity_interval[0] >= limits.sensitivity,
        f"{point.sensitivity:.3f} ({_interval(point.sensitivity_interval)})" if point else NOT_MEASURED,
        f"at least {limits.sensitivity:g}",
    )
    yield Gate(
        "calibration-error",
        "expected calibration error",
        own is not None and own.ece <= limits.calibration_error,
        f"{own.ece:.3f}" if own else NOT_EVALUATED,
        f"at most {limits.calibration_error:g}",
    )
    low, high = limits.calibration_slope
    yield Gate(
        "calibration-slope",
        "slope of the calibration",
        own is not None and low <= own.calibration_slope <= high,
        f"{own.calibration_slope:.2f}" if own else NOT_EVALUATED,
        f"{low:g} to {high:g}",
    )
    shortcuts = own.shortcuts if own else {}
    worst = max(shortcuts, key=lambda name: shortcuts[name], default=None)
    complete = shortcuts.keys() >= set(SHORTCUTS)
    yield Gate(
        "shortcuts",
        "AUC without looking at the lungs",
        complete and all(area <= limits.shortcut_auc for area in shortcuts.values()),
        f"{shortcuts[worst]:.3f} ({worst.replace('_', ' ')})" if worst and complete else NOT_MEASURED,
        f"at most {limits.shortcut_auc:g}",
    )
    sanity = own.sanity if own else None
    yield Gate(
        "maps",
        "maps follow picture and weights",
        sanity is not None and sanity.passed,
        f"{sanity.outside_chest:.0%} outside the chest, similarity to random weights {sanity.randomised_similarity:.2f}"
        if sanity
        else NOT_MEASURED,
        "the evaluation's sanity check passes",
    )


def _against_active(evidence: Evidence, own: Summary | None, limits: Promotion) -> Iterator[Gate]:
    """On the same films as the active bundle, each at its own operating point."""
    if evidence.active_digest is None:
        yield from _without_active(limits)
        return
    found = own.comparison if own else None
    if found is not None and found.bundle_digest != evidence.active_digest:
        found = None
    yield Gate(
        "same-films",
        _SAME_FILMS,
        found is not None,
        f"compared with {found.bundle_digest[:12]}" if found else NOT_COMPARED,
        f"compared with {evidence.active_digest[:12]}",
    )
    yield from _differences(found, limits)


def _differences(found: Comparison | None, limits: Promotion) -> Iterator[Gate]:
    by_area = _wider(found.auc_interval, found.auc_interval_by_patient) if found else None
    yield Gate(
        "auc",
        _AUC,
        by_area is not None and by_area[0] > -limits.auc_margin,
        f"{found.auc_difference:+.3f} ({_interval(by_area, sign=True)})" if found and by_area else NOT_COMPARED,
        f"above {-limits.auc_margin:g}",
    )
    interval = found.specificity_interval if found else None
    measured = found is not None and found.specificity_difference is not None and interval is not None
    yield Gate(
        "specificity",
        _SPECIFICITY,
        measured and interval is not None and interval[0] > -limits.specificity_margin,
        f"{found.specificity_difference:+.3f} ({_interval(interval, sign=True)})"
        if measured and found and interval
        else NOT_COMPARED,
        f"above {-limits.specificity_margin:g}",
    )
    yield Gate(
        "critical-misses",
        _MISSES,
        found is not None and found.critical > 0 and not found.new_critical_misses,
        f"{len(found.new_critical_misses)} of {counted(found.critical, 'critical film')}" if found else NOT_COMPARED,
        "0; look at each one before you waive this",
    )
    yield Gate(
        "groups",
        _GROUPS,
        found is not None and found.groups > 0 and found.largest_group_loss <= limits.group_margin,
        f"{found.largest_group_loss:.3f} in {counted(found.groups, 'group')}" if found else NOT_COMPARED,
        f"at most {limits.group_margin:g}",
    )


def _without_active(limits: Promotion) -> Iterator[Gate]:
    titles = {
        "same-films": _SAME_FILMS,
        "auc": _AUC,
        "specificity": _SPECIFICITY,
        "critical-misses": _MISSES,
        "groups": _GROUPS,
    }
    for name, title in titles.items():
        yield Gate(name, title, passed=True, measured="there is no active model", wanted="nothing")


def _shadow(found: ShadowStatistics | None, own: Summary | None, limits: Promotion) -> Iterator[Gate]:
    """On live films."""
    never = "never read silently"
    yield Gate(
        "shadow-days",
        "days of silent reading",
        found is not None and found.days >= limits.shadow_days,
        f"{found.days:.1f}" if found else never,
        f"at least {limits.shadow_days:g}",
    )
    yield Gate(
        "shadow-studies",
        "studies read silently",
        found is not None and found.studies >= limits.shadow_studies,
        str(found.studies) if found else never,
        f"at least {limits.shadow_studies}",
    )
    yield Gate(
        "shadow-abnormal",
        "of these, with a finding by their report",
        found is not None and found.abnormal >= limits.shadow_abnormal,
        f"{found.abnormal} of {found.reported} with a report" if found else never,
        f"at least {limits.shadow_abnormal}",
    )
    forecast = forecast_below(found, own) if found and own else None
    share = found.below / found.studies if found and found.studies else None
    yield Gate(
        "shadow-share",
        "share of studies below the operating point",
        share is not None and forecast is not None and abs(share - forecast) <= limits.shadow_share_margin,
        never
        if share is None
        else f"{share:.1%}, " + ("no forecast" if forecast is None else f"forecast {forecast:.1%}"),
        f"within {limits.shadow_share_margin:.1%} of the evaluation's forecast",
    )


def forecast_below(found: ShadowStatistics, own: Summary) -> float | None:
    """Share of studies below the operating point that the evaluation predicts for this site's share of findings.

    Parameters
    ----------
    found : ShadowStatistics
        Its reported studies tell how many have a finding.
    own : Summary
        Sensitivity and specificity at the operating point.

    Returns
    -------
    float or None
        0 to 1; None without an operating point or a report.
    """
    point = own.operating_point
    if point is None or not found.reported:
        return None
    abnormal = found.abnormal / found.reported
    return abnormal * (1 - point.sensitivity) + (1 - abnormal) * point.specificity


def _wider(one: tuple[float, float], other: tuple[float, float] | None) -> tuple[float, float]:
    return one if other is None else (min(one[0], other[0]), max(one[1], other[1]))


def _interval(interval: tuple[float, float], *, sign: bool = False) -> str:
    low, high = interval
    return f"{low:+.3f} to {high:+.3f}" if sign else f"{low:.3f} to {high:.3f}"
