"""Which films the page shows as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clearfilm.evaluation import Miss
from training.cohort import Film
from training.evaluation.findings import Findings
from training.evaluation.measures import PAPER_THRESHOLD
from training.evaluation.pictures import inline
from training.evaluation.severity import Severity

# Enough to look at; the others are listed in report.json.
MOST_MISSES: Final = 48
_EACH: Final = 6


@dataclass(frozen=True)
class Shown:
    """One film on the page."""

    picture: str
    film: Film
    score: float
    severity: Severity | None


@dataclass(frozen=True)
class Gallery:
    """All pictures of the page."""

    misses: tuple[tuple[Miss, Shown], ...]
    maps: tuple[tuple[str, tuple[Shown, ...]], ...]
    """Heading to films with contours."""
    threshold: float
    """That tells found from missed films: the operating point, or the paper's where there is none."""


def gather(
    findings: Findings, severities: Sequence[Severity | None], film: Callable[[int], NDArray[np.uint8]]
) -> Gallery:
    """Choose and draw films.

    Parameters
    ----------
    findings : Findings
    severities : sequence of str or None
        Of the abnormal films.
    film : callable
        Row of the sample to the network's input.
    """
    sample, answers = findings.sample, findings.answers
    rows = {one.sha256: row for row, one in enumerate(sample.films)}

    def shown(row: int, *, contours: bool) -> Shown:
        evidence = answers.evidence[row] if contours else None
        picture = inline(film(row), evidence, findings.bundle.evidence_threshold)
        return Shown(picture, sample.films[row], float(answers.scores[row]), severities[row])

    threshold = PAPER_THRESHOLD if answers.threshold is None else answers.threshold
    called, abnormal = answers.scores >= threshold, sample.labels == 1
    # By digest: a sample at random that nobody has picked and that is the same each time.
    drawn = sorted(range(len(sample)), key=lambda row: sample.films[row].sha256)
    kinds = (
        ("Abnormal films that were found", called & abnormal),
        ("Abnormal films that were missed", ~called & abnormal),
        ("Normal films that were called finding", called & ~abnormal),
    )
    maps = tuple(
        (heading, tuple(shown(row, contours=True) for row in [row for row in drawn if kind[row]][:_EACH]))
        for heading, kind in kinds
    )
    misses = tuple((miss, shown(rows[miss.film], contours=False)) for miss in findings.summary.misses[:MOST_MISSES])
    return Gallery(misses, maps, threshold)
