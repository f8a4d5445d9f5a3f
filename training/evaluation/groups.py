"""Figures on groups of films: view, sex, age band, device, site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clearfilm.evaluation import Group
from training.cohort import Film
from training.evaluation import intervals
from training.evaluation.intervals import Interval, Replicates
from training.evaluation.reading import Answers
from training.ranking import area

UNKNOWN: Final = "unknown"
# Fewer films of a label than this say nothing about a group.
FEW: Final = 30
_BANDS: Final = ((40, "18-39"), (60, "40-59"), (80, "60-79"), (1000, "80 and over"))
_REPLICATES: Final = 1000


def _age_band(film: Film) -> str:
    return next(name for end, name in _BANDS if int(film.age) < end) if film.age else UNKNOWN


KEYS: Final[Mapping[str, Callable[[Film], str]]] = {
    "view": lambda film: film.view or UNKNOWN,
    "sex": lambda film: film.sex or UNKNOWN,
    "age": _age_band,
    "device": lambda film: film.device or UNKNOWN,
    "site": lambda film: film.site or UNKNOWN,
}


@dataclass(frozen=True, eq=False)
class Sample:
    """Films with their labels: 1 abnormal, 0 normal."""

    films: tuple[Film, ...]
    labels: NDArray[np.float32]

    @classmethod
    def of(cls, films: Sequence[Film]) -> Sample:
        """Of films of a cohort."""
        return cls(tuple(films), np.array([film.abnormal for film in films], dtype=np.float32))

    def __len__(self) -> int:
        return len(self.films)

    @property
    def patients(self) -> list[str]:
        """One for each film."""
        return [film.patient for film in self.films]

    @property
    def abnormal(self) -> int:
        """Number of abnormal films."""
        return int(self.labels.sum())

    def only(self, chosen: NDArray[np.bool_]) -> Sample:
        """Some of the films."""
        return Sample(tuple(self.films[place] for place in np.flatnonzero(chosen)), self.labels[chosen])

    def members(self, key: str) -> dict[str, NDArray[np.bool_]]:
        """Which films are in each group of one kind, largest first; age bands in their order."""
        names = np.array([KEYS[key](film) for film in self.films])
        found, counts = np.unique(names, return_counts=True)
        order = np.arange(len(found)) if key == "age" else np.argsort(-counts, kind="stable")
        return {str(name): names == name for name in found[order]}


def measure(sample: Sample, answers: Answers) -> Group:
    """Figures on films; those that need a label which none of them has are None.

    Parameters
    ----------
    sample : Sample
    answers : Answers
        On the same films.
    """
    labels, found = sample.labels, ~answers.below
    normal = len(sample) - sample.abnormal
    both = sample.abnormal > 0 and normal > 0
    decides = answers.threshold is not None
    patients = np.array(sample.patients)
    hits, cleared = found[labels == 1], (~found)[labels == 0]
    hits_worth = intervals.effective(hits, patients[labels == 1])
    cleared_worth = intervals.effective(cleared, patients[labels == 0])
    return Group(
        n=len(sample),
        normal=normal,
        abnormal=sample.abnormal,
        auc=area(labels, answers.scores) if both else None,
        auc_interval=area_interval(sample, answers.scores) if both else None,
        sensitivity=float(hits.mean()) if decides and sample.abnormal else None,
        sensitivity_interval=intervals.exact(*hits_worth) if decides and sample.abnormal else None,
        specificity=float(cleared.mean()) if decides and normal else None,
        specificity_interval=intervals.exact(*cleared_worth) if decides and normal else None,
    )


def area_interval(sample: Sample, scores: NDArray[np.float64], count: int = _REPLICATES) -> Interval:
    """Of an AUC, by bootstrap over patients."""
    replicates = Replicates(sample.patients, sample.labels, count)
    low, high = replicates.intervals(lambda places: np.array([area(sample.labels[places], scores[places])]))[0]
    return float(low), float(high)


def by_key(sample: Sample, answers: Answers, key: str) -> dict[str, Group]:
    """Figures on each group of one kind, in the order of `Sample.members`."""
    return {name: measure(sample.only(chosen), answers.only(chosen)) for name, chosen in sample.members(key).items()}


def is_small(group: Group) -> bool:
    """Whether a group has too few films of a label to say anything."""
    return min(group.normal, group.abnormal) < FEW
