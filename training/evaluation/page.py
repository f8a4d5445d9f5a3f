"""The report as one HTML page that needs nothing else: no script, no outside host, readable from disk and on paper."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from clearfilm.evaluation import Group
from training.evaluation import plots
from training.evaluation.findings import Findings
from training.evaluation.gallery import MOST_MISSES, Gallery
from training.evaluation.groups import FEW, is_small
from training.evaluation.queueing import CLASSES, POLICIES
from training.evaluation.severity import ORDER
from training.finish import DEMONSTRATION_FILMS

_TEMPLATE: Final = "report.html.j2"
_KEYS: Final = {"view": "View", "sex": "Sex", "age": "Age", "device": "Device", "site": "Site"}
# Above these, look for the reason before believing the model: see "Does it look at the lungs?".
_SHORTCUT_ALARM: Final = 0.75
_TOO_GOOD: Final = 0.985
_GOOD_CALIBRATION: Final = 0.03
_SHORTCUTS: Final = {
    "metadata": "View, sex and age alone",
    "thumbnail": "A thumbnail of 32 × 32 pixels",
    "lungs_blacked_out": "This model, with the lungs blacked out",
}


def render(findings: Findings, gallery: Gallery) -> str:
    """The whole page.

    Parameters
    ----------
    findings : Findings
    gallery : Gallery

    Returns
    -------
    str
        HTML 5.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=_figure, percent=_percent, span=_span, percents=_percents, minutes=_minutes, minutes_of=_minutes_of
    )
    rows = group_rows(findings)
    severities = Counter(miss.severity for miss in findings.summary.misses)
    return environment.get_template(_TEMPLATE).render(
        f=findings,
        s=findings.summary,
        gallery=gallery,
        notes=notes(findings),
        groups=rows,
        is_small=is_small,
        few=FEW,
        few_test_films=DEMONSTRATION_FILMS,
        severities=[(severity, severities[severity]) for severity in ORDER],
        most_misses=MOST_MISSES,
        shortcuts=[(_SHORTCUTS[name], value) for name, value in findings.summary.shortcuts.items()],
        policies=POLICIES,
        classes=CLASSES,
        waits={(wait.policy, wait.studies): wait for wait in findings.waits},
        planted_contrasts=sorted({one.contrast for one in findings.examination.planted}),
        planted_rows=[
            (size, list(row)) for size, row in groupby(findings.examination.planted, key=lambda one: one.size)
        ],
        plots=_plots(findings, rows),
    )


def group_rows(findings: Findings) -> list[tuple[str, str, Group]]:
    """Kind, name and figures of each group; kinds with one group only tell nothing new."""
    found = {"view": findings.summary.by_view, **findings.summary.groups}
    return [
        (heading, name, group)
        for key, heading in _KEYS.items()
        if len(found.get(key, {})) > 1 or key == "view"
        for name, group in found[key].items()
    ]


def notes(findings: Findings) -> list[str]:
    """What a reader must know before the figures, gravest first."""
    summary = findings.summary
    point = summary.operating_point
    found = []
    if summary.identity.scheme != "none" and not summary.identity.held_back:
        found.append(findings.learned_from)
    if point is None:
        found.append(
            'The model has no operating point: it can never say "no significant finding". More abnormal calibration '
            "patients are needed."
        )
    elif point.sensitivity_interval[1] < point.guaranteed_sensitivity:
        found.append(
            f"At the operating point the model finds {_percent(point.sensitivity)} of the abnormal films, clearly less "
            f"than the {_percent(point.guaranteed_sensitivity)} that were guaranteed: these films are not like those "
            "that it was calibrated on."
        )
    if summary.auc > _TOO_GOOD:
        found.append(
            f"An AUC above {_TOO_GOOD} is more than the best published results on one site's own films: look for "
            "leakage and shortcuts first."
        )
    for name, value in summary.shortcuts.items():
        if value > _SHORTCUT_ALARM:
            found.append(
                f"{_SHORTCUTS[name]}: AUC {value:.3f} without looking at the lungs. Compare the model with this, not "
                "with 0.5."
            )
    if summary.sanity is not None and not summary.sanity.passed:
        found.append("The maps do not follow the weights, or lie outside the chest: do not use them.")
    if summary.ece_interval[0] > _GOOD_CALIBRATION:
        found.append(f"Scores are no good probabilities: calibration error {summary.ece:.3f}.")
    found += _weak_groups(findings)
    if summary.identity.scheme == "none":
        found.append(findings.learned_from)
    return found


def _weak_groups(findings: Findings) -> list[str]:
    point = findings.summary.operating_point
    if point is None:
        return []
    return [
        f"{kind} {name}: {_percent(group.sensitivity)} of abnormal films found, less than in all films "
        f"({_percent(point.sensitivity)}); the difference is not chance alone."
        for kind, name, group in group_rows(findings)
        if group.sensitivity is not None
        and group.sensitivity_interval is not None
        and group.abnormal >= FEW
        and group.sensitivity_interval[1] < point.sensitivity
    ]


def _plots(findings: Findings, rows: Sequence[tuple[str, str, Group]]) -> dict[str, str]:
    labels, scores = findings.sample.labels, findings.answers.scores
    other = None if findings.opponent is None else findings.opponent.answers.scores
    return {
        "roc": plots.roc(labels, scores, findings.at_point, other),
        "precision_recall": plots.precision_recall(labels, scores),
        "scores": plots.scores(labels, scores, findings.answers.threshold),
        "reliability": plots.reliability(labels, scores),
        "groups": plots.groups([(f"{kind}: {name}", group) for kind, name, group in rows], findings.summary.auc),
        "waiting": plots.waiting(findings.waits),
    }


def _figure(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def _span(interval: tuple[float, float] | None, digits: int = 3) -> str:
    return "–" if interval is None else f"{_figure(interval[0], digits)} to {_figure(interval[1], digits)}"


def _percents(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def _minutes(value: float) -> str:
    return "none" if not math.isfinite(value) else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _minutes_of(seconds: float) -> str:
    return f"{seconds / 60:g}"
