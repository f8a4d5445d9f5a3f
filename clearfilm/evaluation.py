"""What an evaluation says of a bundle: the content of `report.json`, which promotion and foreign tools rely on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

REPORT: str = "report.json"
SHORTCUTS = ("metadata", "thumbnail", "lungs_blacked_out")
Interval = Annotated[tuple[float, float], Field(description="95 %: low, high")]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, protected_namespaces=())


class Identity(_Part):
    """Which bundle, read on which films."""

    bundle_digest: str
    bundle_name: str
    bundle_version: str
    cohort_digest: str
    """Version of the cohort; of a folder with a CSV file, the digest that a cohort of it would have."""
    scheme: str
    """How the cohort was split: "patient", "paper", or "none" for a folder."""
    held_back: bool = False
    """Whether the patients are known to have been kept out of the bundle's training and calibration."""
    code_version: str


class Group(_Part):
    """Figures on a group of films; AUC is None where one label is missing."""

    n: int
    normal: int
    abnormal: int
    auc: float | None = None
    auc_interval: Interval | None = None
    sensitivity: Share | None = None
    """At the bundle's operating point; with its exact interval, films of one patient for less."""
    sensitivity_interval: Interval | None = None
    specificity: Share | None = None
    specificity_interval: Interval | None = None


class AtSensitivity(_Part):
    """Specificity where the threshold is chosen for a sensitivity on these very films, anew in each bootstrap."""

    threshold: float
    specificity: Share
    interval: Interval


class PerClass(_Part):
    """A figure for each class, at a probability of 0.5 as in the paper; 0 where no film was called so."""

    no_finding: float
    finding: float
    no_finding_interval: Interval
    finding_interval: Interval


class OperatingFigures(_Part):
    """The bundle's own operating point on films that it was not fitted on."""

    threshold: Share
    guaranteed_sensitivity: Share
    confidence: Share
    sensitivity: Share
    sensitivity_interval: Interval
    specificity: Share
    specificity_interval: Interval
    missed: int
    missed_critical: int
    missed_critical_upper: Share
    """Exact upper bound of the share of critical films that are missed; 1 where there is none."""


class Miss(_Part):
    """An abnormal film below the operating point."""

    film: str
    """SHA-256 of the film: no name of a file or patient."""
    severity: Literal["critical", "finding", "device", "minor"]
    tags: str
    score: Share
    turned_away: bool = False
    """Whether the worker would have given no answer, because the film is unlike those that the bundle knows."""


class Comparison(_Part):
    """The same films read by another bundle, each at its own operating point."""

    bundle_digest: str
    auc_difference: float
    """This one's minus the other's."""
    auc_interval: Interval
    """E. R. DeLong et al., Biometrics 1988: films taken for independent."""
    auc_interval_by_patient: Interval | None = None
    """By bootstrap over patients: the wider one where patients have several films."""
    p_value: float
    specificity_difference: float | None
    specificity_interval: Interval | None
    new_critical_misses: tuple[str, ...]
    """SHA-256 of critical films that this one misses and the other does not."""
    critical: int = 0
    """Critical films that both read; of none nothing can be missed."""
    largest_group_loss: float
    """Largest fall of sensitivity in a group of at least the smallest size that counts; 0: none fell."""
    groups: int = 0
    """Groups of that size."""


class Sanity(_Part):
    """Whether the maps follow the picture and the weights."""

    outside_chest: Share
    """Share of positive evidence outside the chest, mean over films."""
    randomised_similarity: float
    """Structural similarity of maps before and after the weights were drawn at random; near 0 is good."""
    passed: bool


class Summary(_Part):
    """Content of `report.json`. Further keys may be there; these are relied on."""

    format: Literal[1] = 1
    demonstration: bool
    """Too few films: figures must not be quoted."""
    created: datetime
    identity: Identity
    n: int
    normal: int
    abnormal: int
    patients: int
    auc: float
    auc_interval: Interval
    by_view: dict[str, Group]
    groups: dict[str, dict[str, Group]]
    """Sex, age band, device, site: name to group."""
    precision: PerClass
    recall: PerClass
    f1: PerClass
    specificity_at_sensitivity: dict[str, AtSensitivity]
    """Key: "0.95", "0.98", "0.99", "0.995"."""
    brier: float
    brier_interval: Interval
    ece: float
    ece_interval: Interval
    calibration_slope: float
    """0 where it is not defined: labels separated perfectly, or one score for all films."""
    calibration_slope_interval: Interval
    operating_point: OperatingFigures | None
    misses: tuple[Miss, ...]
    shortcuts: dict[str, float]
    """AUC without looking at the lungs, by the names of `SHORTCUTS`; one that could not be measured is missing."""
    comparison: Comparison | None = None
    sanity: Sanity | None = None
