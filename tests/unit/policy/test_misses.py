"""The miss rate: exact intervals, and an alarm that may be asked at every report."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from clearfilm.errors import PolicyError
from clearfilm.policy.misses import (
    Tally,
    assess,
    evidence_against,
    exact_interval,
    running_lower_bound,
    target_of,
)

tallies = st.integers(0, 400).flatmap(lambda n: st.integers(0, n).map(lambda k: Tally(n, k)))


def test_pairs_are_counted() -> None:
    assert Tally.of([(True, True), (False, True), (True, False), (False, False), (True, True)]) == Tally(3, 2)


@given(tallies)
def test_exact_interval_has_the_tails_of_its_definition(tally: Tally) -> None:
    low, high = exact_interval(tally)
    if tally.missed:
        assert binom.sf(tally.missed - 1, tally.findings, low) == pytest.approx(0.025, rel=1e-6)
    if tally.missed < tally.findings:
        assert binom.cdf(tally.missed, tally.findings, high) == pytest.approx(0.025, rel=1e-6)
    assert 0 <= low <= high <= 1


def test_no_data_say_nothing_and_raise_no_alarm() -> None:
    assert exact_interval(Tally()) == (0.0, 1.0)
    found = assess(Tally(), Tally(), target=0.01, confidence=0.95)
    assert found.alarm is None
    assert found.unseen.rate is None


def test_368_findings_without_a_miss_are_needed_for_one_percent() -> None:
    # As docs/triage-policy.md says of the interval that is shown.
    assert exact_interval(Tally(367, 0))[1] > 0.01
    assert exact_interval(Tally(368, 0))[1] < 0.01


def test_rule_of_three() -> None:
    # One-sided 95 %: the upper end of the two-sided 90 % interval.
    assert exact_interval(Tally(298, 0), 0.9)[1] > 0.01
    assert exact_interval(Tally(299, 0), 0.9)[1] < 0.01


@given(tallies, st.sampled_from([0.9, 0.95, 0.99]))
def test_running_bound_is_where_the_evidence_suffices_and_below_the_exact_one(tally: Tally, confidence: float) -> None:
    low = running_lower_bound(tally, confidence)
    assert 0 <= low <= exact_interval(tally, 2 * confidence - 1)[0] + 1e-12
    if low:
        assert evidence_against(low, tally) == pytest.approx(-math.log(1 - confidence), rel=1e-6)


def first_alarms(true_rate: float, target: float, length: int, runs: int) -> tuple[float, float]:
    """Share of runs in which the running bound, and the exact bound at each look, ever pass the target."""
    missed = (np.random.default_rng(1).random((runs, length)) < true_rate).cumsum(axis=1)
    number = np.arange(1, length + 1)
    needed = {n: boundary(n, target) for n in range(1, length + 1)}
    running = (missed >= np.array([needed[n] for n in number])).any(axis=1)
    naive = (binom.sf(missed - 1, number, target) < 0.05).any(axis=1)
    return float(running.mean()), float(naive.mean())


def boundary(n: int, target: float) -> int:
    """Fewest misses of n whose running bound is above the target."""
    low, high = int(n * target), n + 1
    while low < high:
        middle = (low + high) // 2
        if running_lower_bound(Tally(n, middle), 0.95) > target if middle <= n else True:
            high = middle
        else:
            low = middle + 1
    return low


def test_looking_at_every_report_raises_few_false_alarms_where_the_exact_interval_raises_many() -> None:
    running, naive = first_alarms(true_rate=0.1, target=0.1, length=600, runs=1000)
    assert running <= 0.05
    assert naive > 0.2


def test_a_rate_of_three_times_the_target_is_found() -> None:
    running, _ = first_alarms(true_rate=0.3, target=0.1, length=120, runs=300)
    assert running > 0.95


def test_an_alarm_tells_its_numbers() -> None:
    found = assess(Tally(3, 1), Tally(60, 30), target=0.1, confidence=0.95)
    assert found.alarm is not None
    assert found.alarm.startswith("30 of 60 with a finding were tagged among all studies")
    assert "the target is 10.0%" in found.alarm


def test_the_target_is_the_configured_one_or_what_the_guarantee_leaves() -> None:
    assert target_of(0.02, 0.9) == 0.02
    assert target_of(None, 0.9) == pytest.approx(0.1)
    with pytest.raises(PolicyError, match="target_miss_rate"):
        target_of(None, None)
