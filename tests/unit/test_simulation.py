"""The simulator reproduces the published effect of prioritising."""

import numpy as np
import pytest

from clearfilm.simulation import Arrivals, Simulation, simulate

READING_SECONDS = 300.0


def crowded_month(limit_minutes: float, seed: int) -> Simulation:
    """One reader, 90 % busy; 5 % of the abnormal and half of the others are tagged."""
    random, number = np.random.default_rng(seed), 4000
    arrived = np.cumsum(random.exponential(READING_SECONDS / 0.9, number))
    abnormal = random.random(number) < 0.4
    tagged = random.random(number) < np.where(abnormal, 0.05, 0.5)
    limits = np.full(number, limit_minutes * 60)
    return simulate(Arrivals(arrived, tagged, abnormal, limits), readers=1, reading_seconds=READING_SECONDS, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_without_the_limit_the_longest_wait_grows_with_it_it_does_not(seed: int) -> None:
    """I. M. Baltruschat et al., Eur Radiol 31:3837 (2021): 890, 1293 and 979 minutes; means 80.1 and 35.6."""
    waits = crowded_month(120, seed).waits
    everybody, abnormal, missed = waits["all"], waits["abnormal"], waits["missed abnormal"]
    assert everybody["triage"].maximum > 1.4 * everybody["first come"].maximum
    assert everybody["triage with the limit"].maximum < 1.1 * everybody["first come"].maximum
    assert abnormal["triage"].mean < 0.5 * abnormal["first come"].mean
    assert abnormal["triage with the limit"].mean < abnormal["first come"].mean
    assert missed["triage"].mean > 1.5 * missed["first come"].mean
    assert missed["triage with the limit"].maximum < missed["triage"].maximum


def test_groups_are_counted_and_all_is_as_long_in_every_order() -> None:
    found = crowded_month(60, seed=1)
    assert found.waits["all"]["triage"].studies == 4000
    assert found.waits["tagged"]["triage"].studies > found.waits["missed abnormal"]["triage"].studies > 0
    assert found.utilisation == pytest.approx(0.9, abs=0.05)


def test_without_outcomes_there_are_no_rows_of_abnormal_ones() -> None:
    arrivals = Arrivals(np.array([0.0]), np.array([True]), None, np.array([60.0]))
    found = simulate(arrivals, readers=1, reading_seconds=60)
    assert list(found.waits) == ["all", "tagged"]
    assert found.waits["all"]["triage"].maximum == 0
