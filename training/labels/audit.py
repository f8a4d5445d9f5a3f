"""The blind audit of labels: how precise they are, measured against a human reader."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from clearfilm.errors import ClearfilmError
from training.labels.rules import Value

_REPLICATES = 2000
_SEED = 20_190_900
T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A share or coefficient with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """Rules against reader. Precision and recall are those of "no finding"."""

    reports: int
    decided: int  # neither the rules nor the reader said indeterminate
    precision: Estimate | None
    recall: Estimate | None
    kappa: Estimate | None
    disagreements: tuple[str, ...]  # identifiers of reports


def sample(reports: Sequence[T], number: int, seed: int) -> list[T]:
    """A random sample in random order.

    Raises
    ------
    ClearfilmError
        If there are fewer reports.
    """
    if number > len(reports):
        raise ClearfilmError(f"there are only {len(reports)} reports")
    return random.Random(seed).sample(reports, number)  # noqa: S311 - a sample, no secret


def score(rules: Mapping[str, str], reader: Mapping[str, str]) -> Score:
    """Compare labels.

    Parameters
    ----------
    rules, reader : mapping
        Identifier → label; only reports in both count.

    Returns
    -------
    Score
        Precision: of those that the rules call "no finding", how many the reader does too. Recall: of the reader's "no
        finding", how many the rules found; an indeterminate one counts as not found. Both with exact binomial
        intervals. Kappa over all three labels, with a bootstrap interval.
    """
    pairs = [(rules[name], reader[name]) for name in reader if name in rules]
    called = [(ours, theirs) for ours, theirs in pairs if ours == Value.NO_FINDING]
    clear = [(ours, theirs) for ours, theirs in pairs if theirs == Value.NO_FINDING]
    both = sum(ours == theirs for ours, theirs in called)
    return Score(
        reports=len(pairs),
        decided=sum(Value.INDETERMINATE not in pair for pair in pairs),
        precision=share(both, len(called)),
        recall=share(both, len(clear)),
        kappa=_kappa_with_interval(pairs),
        disagreements=tuple(name for name in reader if name in rules and rules[name] != reader[name]),
    )


def share(hits: int, number: int) -> Estimate | None:
    """A share with its exact (Clopper-Pearson) 95 % interval; None of nothing."""
    from scipy.stats import beta

    if not number:
        return None
    low = float(beta.ppf(0.025, hits, number - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, number - hits)) if hits < number else 1.0
    return Estimate(hits / number, low, high)


def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa; None where it is undefined (nothing, or both always say the same one thing)."""
    number = len(pairs)
    if not number:
        return None
    agreed = sum(one == other for one, other in pairs) / number
    labels = {label for pair in pairs for label in pair}
    by_chance = sum(
        sum(one == label for one, _ in pairs) * sum(other == label for _, other in pairs) for label in labels
    ) / (number * number)
    return None if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)


def _kappa_with_interval(pairs: Sequence[tuple[str, str]]) -> Estimate | None:
    value = kappa(pairs)
    if value is None:
        return None
    chance = random.Random(_SEED)  # noqa: S311 - the same interval each time
    found = (kappa(chance.choices(pairs, k=len(pairs))) for _ in range(_REPLICATES))
    replicates = sorted(one for one in found if one is not None)
    return Estimate(value, replicates[int(0.025 * len(replicates))], replicates[int(0.975 * len(replicates))])
