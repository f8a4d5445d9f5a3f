"""Films with scores, for tests of the evaluation that read no picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.cohort import Film
from training.evaluation.groups import Sample
from training.evaluation.reading import Answers


def film(number: int, *, abnormal: bool, **facts: str) -> Film:
    values = {"patient": f"P{number}", "view": "PA", "sex": "F", "age": "50", "tags": "significant" if abnormal else ""}
    return Film(
        file=f"{number}.png",
        sha256=f"{number:064x}",
        label="abnormal" if abnormal else "normal",
        part="test",
        **(values | facts),  # type: ignore[arg-type]
    )


def sample(labels: list[int], **facts: list[str]) -> Sample:
    """A film for each label; facts by column."""
    rows = [{name: values[number] for name, values in facts.items()} for number in range(len(labels))]
    return Sample.of([film(number, abnormal=bool(label), **rows[number]) for number, label in enumerate(labels)])


def answers(scores: list[float] | NDArray[np.float64], threshold: float | None = 0.5) -> Answers:
    values = np.array(scores, dtype=np.float64)
    return Answers(
        scores=values,
        evidence=np.zeros((len(values), 2, 2), np.float32),
        unusual=np.zeros(len(values), np.bool_),
        threshold=threshold,
    )
