"""Everything that an evaluation found out, ready for the page and for `report.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from clearfilm.evaluation import Group, Summary
from clearfilm.vision.bundle import Description
from training.evaluation.comparison import Duel
from training.evaluation.delong import Difference
from training.evaluation.groups import Sample
from training.evaluation.intervals import Interval
from training.evaluation.label_audit import LabelAudit
from training.evaluation.measures import PAPER_THRESHOLD, Confusion, confusion, predictive_value
from training.evaluation.queueing import Traffic, Wait
from training.evaluation.reading import Answers
from training.evaluation.sanity import Examination
from training.labels.audit import Estimate

PREVALENCES: Final = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class TurnedAway:
    """Films that the unusual-image gate would give no answer, and the figures without them."""

    n: int
    normal: int
    abnormal: int
    without: Group


@dataclass(frozen=True)
class Leakage:
    """A model of a split by film beside this one of a split by patient."""

    bundle_digest: str
    cohort_digest: str
    shared_patients: int
    n: int
    auc: float
    auc_interval: Interval
    difference: Difference


@dataclass(frozen=True)
class Opponent:
    """The other bundle and how it did."""

    name: str
    description: Description
    duel: Duel
    answers: Answers


@dataclass(frozen=True)
class Predictive:
    """Negative predictive value at one prevalence, with the extremes of the exact intervals."""

    prevalence: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Findings:
    """What the page shows."""

    summary: Summary
    bundle: Description
    sample: Sample
    answers: Answers
    estimates: Mapping[str, Estimate]
    turned_away: TurnedAway
    temporal: Group | None
    excluded: Mapping[str, int]
    learned_from: str
    reader: str
    regressions_from: str
    """Which films the regressions of the shortcut tests were fitted on."""
    blacked_out: int
    """Films that were read with the lungs blacked out."""
    bootstrap_samples: int
    delong_interval: Interval
    opponent: Opponent | None
    no_opponent: str
    """Why there is none."""
    leakage: Leakage | None
    traffic: Traffic
    prevalence: float
    waits: tuple[Wait, ...]
    audit: LabelAudit | None
    examination: Examination
    """Of the maps."""

    @property
    def at_half(self) -> Confusion:
        """The paper's threshold."""
        return confusion(self.sample.labels, self.answers.scores, PAPER_THRESHOLD)

    @property
    def at_point(self) -> Confusion | None:
        """The bundle's own threshold."""
        if self.answers.threshold is None:
            return None
        return confusion(self.sample.labels, self.answers.scores, self.answers.threshold)

    def predictive_values(self) -> list[Predictive]:
        """Negative predictive value at the operating point over prevalences."""
        point = self.summary.operating_point
        if point is None:
            return []
        lows, highs = zip(point.sensitivity_interval, point.specificity_interval, strict=True)
        return [
            Predictive(
                prevalence,
                predictive_value(point.sensitivity, point.specificity, prevalence),
                predictive_value(*lows, prevalence),
                predictive_value(*highs, prevalence),
            )
            for prevalence in PREVALENCES
        ]

    def details(self) -> dict[str, Any]:
        """What `report.json` tells beyond the summary, for people and foreign tools."""
        found = {
            "estimates": {name: asdict(one) for name, one in self.estimates.items()},
            "auc_interval_delong": self.delong_interval,
            "confusion_at_half": asdict(self.at_half),
            "confusion_at_operating_point": None if self.at_point is None else asdict(self.at_point),
            "negative_predictive_values": [asdict(one) for one in self.predictive_values()],
            "turned_away": {
                "n": self.turned_away.n,
                "normal": self.turned_away.normal,
                "abnormal": self.turned_away.abnormal,
                "without": self.turned_away.without.model_dump(mode="json"),
            },
            "temporal": None if self.temporal is None else self.temporal.model_dump(mode="json"),
            "excluded": dict(self.excluded),
            "learned_from": self.learned_from,
            "other_bundle": None if self.opponent is None else self.opponent.duel.other.model_dump(mode="json"),
            "random_split": None if self.leakage is None else asdict(self.leakage),
            "waits": [asdict(one) for one in self.waits],
            "traffic": {
                "utilisation": self.traffic.utilisation,
                "reading_seconds": self.traffic.reading_seconds,
                "readers": self.traffic.readers,
                "limit_seconds": self.traffic.limit_seconds,
                "prevalence": self.prevalence,
                "arrivals": None if self.traffic.arrived_seconds is None else len(self.traffic.arrived_seconds),
            },
            "maps": {
                "randomised": [asdict(one) for one in self.examination.randomised],
                "outside_chest": asdict(self.examination.outside),
                "planted_opacities": [asdict(one) for one in self.examination.planted],
            },
            "label_audit": None if self.audit is None else asdict(self.audit),
        }
        plain: dict[str, Any] = _without_nan(found)
        return plain


def _without_nan(value: Any) -> Any:
    """JSON has no nan: null instead."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
