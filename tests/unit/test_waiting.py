"""The queue of studies: laws for every list of arrivals, closed forms for random ones."""

import math
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clearfilm.waiting import waits

_Waits = NDArray[np.float64]


@dataclass(frozen=True)
class Day:
    """Arrivals in whole seconds, so that sums are exact."""

    arrived: list[int]
    service: list[int]
    lowered: list[bool]
    limits: list[float]
    readers: int

    def waits(self, *, limited: bool = True) -> _Waits:
        limits = self.limits if limited else None
        return waits(self.arrived, self.service, self.lowered, readers=self.readers, limit_seconds=limits)

    def first_come(self) -> _Waits:
        return waits(self.arrived, self.service, False, readers=self.readers)


@st.composite
def days(draw: st.DrawFn, *, most_readers: int = 4) -> Day:
    studies = draw(
        st.lists(
            st.tuples(
                st.integers(0, 40),
                st.integers(0, 12),
                st.booleans(),
                st.one_of(st.integers(0, 60), st.just(math.inf)),
            ),
            max_size=24,
        )
    )
    arrived, service, lowered, limits = ([study[place] for study in studies] for place in range(4))
    return Day(arrived, service, lowered, limits, draw(st.integers(1, most_readers)))


def by_hand(day: Day) -> list[float]:
    """The rules word by word: whenever a reader is free, look at all studies anew."""
    started: dict[int, float] = {}
    free: list[float] = [0.0] * day.readers
    now = 0.0
    while len(started) < len(day.arrived):
        waiting = [i for i in range(len(day.arrived)) if i not in started and day.arrived[i] <= now]
        reader = min(range(day.readers), key=free.__getitem__)
        if waiting and free[reader] <= now:
            usual = [i for i in waiting if not day.lowered[i] or day.arrived[i] + day.limits[i] <= now]
            chosen = min(usual or waiting, key=lambda i: (day.arrived[i], i))
            started[chosen] = now
            free[reader] = now + day.service[chosen]
        else:
            now += 1
    return [started[i] - day.arrived[i] for i in range(len(day.arrived))]


@given(days())
def test_waits_are_those_of_the_rules_word_by_word(day: Day) -> None:
    assert day.waits().tolist() == by_hand(day)


@given(days())
def test_no_reader_is_idle_while_a_study_waits(day: Day) -> None:
    started = day.waits() + day.arrived
    for arrived, start in zip(day.arrived, started, strict=True):
        for moment in range(arrived, int(start)):
            busy = sum(a <= moment < a + s for a, s in zip(started, day.service, strict=True))
            assert busy == day.readers


@given(days(most_readers=1))
def test_order_moves_waiting_time_and_makes_none(day: Day) -> None:
    """One reader: the area under the unfinished work is the same in every order (L. Kleinrock, 1965)."""
    service = np.array(day.service)
    assert (day.waits() * service).sum() == (day.first_come() * service).sum()


@given(days())
def test_wait_is_bounded_by_first_come_the_limit_and_the_longest_reading(day: Day) -> None:
    longest, lowered = max(day.service, default=0), np.array(day.lowered, dtype=bool)
    bound = day.first_come() + np.where(
        lowered, np.array(day.limits) + (3 - 2 / day.readers) * longest, 2 * (1 - 1 / day.readers) * longest
    )
    assert (day.waits() <= bound + 1e-9).all()


def test_one_reading_that_began_before_the_return_cannot_be_spared() -> None:
    # Lowered at 1 with the limit 4; at 4 the reader turns to one that came later, until 14.
    late = waits([0, 1, 3], [4, 1, 10], [False, True, False], limit_seconds=4)
    first = waits([0, 1, 3], [4, 1, 10], False)
    assert first.tolist() == [0, 3, 2]
    assert late.tolist() == [0, 13, 1]
    assert first[1] + 4 < late[1] <= first[1] + 4 + 10


@given(days(most_readers=1))
def test_with_one_reader_nobody_waits_longer_for_others_being_lowered(day: Day) -> None:
    usual = ~np.array(day.lowered, dtype=bool)
    assert (day.waits()[usual] <= day.first_come()[usual]).all()


@given(days(), st.booleans())
def test_lowering_all_or_none_is_first_come(day: Day, value: bool) -> None:
    assert waits(day.arrived, day.service, value, readers=day.readers).tolist() == day.first_come().tolist()


@given(days())
def test_limit_of_zero_is_first_come(day: Day) -> None:
    limited = waits(day.arrived, day.service, day.lowered, readers=day.readers, limit_seconds=0)
    assert limited.tolist() == day.first_come().tolist()


@given(days(), st.randoms())
def test_order_of_the_arguments_does_not_matter(day: Day, random: Random) -> None:
    shuffled = list(range(len(day.arrived)))
    random.shuffle(shuffled)
    distinct = [2 * at * len(shuffled) + number for number, at in enumerate(day.arrived)]
    one = waits(distinct, day.service, day.lowered, readers=day.readers, limit_seconds=day.limits)
    other = waits(
        [distinct[i] for i in shuffled],
        [day.service[i] for i in shuffled],
        [day.lowered[i] for i in shuffled],
        readers=day.readers,
        limit_seconds=[day.limits[i] for i in shuffled],
    )
    assert other.tolist() == one[shuffled].tolist()


@pytest.mark.parametrize(
    ("arrived", "service", "readers", "limit"),
    [([math.inf], 1, 1, None), ([0], -1, 1, None), ([0], math.nan, 1, None), ([0], 1, 0, None), ([0], 1, 1, -1)],
)
def test_senseless_arguments_are_refused(arrived: list[float], service: float, readers: int, limit: float) -> None:
    with pytest.raises(ValueError, match="must"):
        waits(arrived, service, False, readers=readers, limit_seconds=limit)


PAPER = (0.898, 0.880)
RULE_OUT = (0.99, 0.50)


@pytest.mark.parametrize(
    ("utilisation", "point", "published"),
    [
        # First come; abnormal on average; missed abnormal. Unit: one reading; 40 % of studies are abnormal.
        (0.80, PAPER, (4.0, 1.7, 6.1)),
        (0.80, RULE_OUT, (4.0, 1.9, 9.0)),
        (0.90, PAPER, (9.0, 2.8, 14.7)),
        (0.90, RULE_OUT, (9.0, 2.6, 24.1)),
        (0.95, PAPER, (19.0, 4.7, 32.2)),
        (0.95, RULE_OUT, (19.0, 3.3, 56.1)),
    ],
)
def test_random_arrivals_wait_as_long_as_queueing_theory_says(
    utilisation: float, point: tuple[float, float], published: tuple[float, float, float]
) -> None:
    """Two classes without pre-emption, Poisson arrivals, exponential readings (A. Cobham, 1954)."""
    sensitivity, specificity = point
    random, number = np.random.default_rng(20190900), 150_000
    arrived = np.cumsum(random.exponential(1 / utilisation, number))
    service = random.exponential(1.0, number)
    abnormal = random.random(number) < 0.4
    lowered = random.random(number) < np.where(abnormal, 1 - sensitivity, specificity)
    kept = 0.4 * sensitivity + 0.6 * (1 - specificity)
    flagged = utilisation / (1 - utilisation * kept)
    rest = flagged / (1 - utilisation)
    first_come = utilisation / (1 - utilisation)
    average = sensitivity * flagged + (1 - sensitivity) * rest
    assert (round(first_come, 1), round(average, 1), round(rest, 1)) == published
    triage = waits(arrived, service, lowered)
    agrees(waits(arrived, service, False), first_come)
    agrees(triage[~lowered], flagged)
    agrees(triage[lowered], rest)
    agrees(triage[abnormal], average)


def agrees(found: _Waits, expected: float) -> None:
    """Within four standard errors, taken from the means of batches: waits in a queue follow one another."""
    batches = np.array([batch.mean() for batch in np.array_split(found, 30)])
    error = batches.std(ddof=1) / math.sqrt(len(batches))
    assert abs(found.mean() - expected) < 4 * error
    assert error < 0.2 * expected
