"""Waiting times of the simulated reading room, against queueing theory and by hand."""

import math

import numpy as np
import pytest

from tests.evaluation_factories import answers, sample
from training.evaluation.queueing import Traffic, Wait, simulate

LABELS = [1] * 40 + [0] * 60
# 90 % of abnormal films found, half of the normal ones cleared.
SCORES = [0.9] * 36 + [0.1] * 4 + [0.9] * 30 + [0.1] * 30


def table(traffic: Traffic, scores: list[float] = SCORES) -> dict[tuple[str, str], Wait]:
    return {(one.policy, one.studies): one for one in simulate(sample(LABELS), answers(scores), traffic)}


def test_means_are_those_of_queueing_theory() -> None:
    # Two classes without interruption, M/M/1; times in units of one reading.
    load, flagged = 0.8, 0.4 * 0.9 + 0.6 * 0.5
    found = table(Traffic(utilisation=load, reading_seconds=60))
    first = load / (1 - load * flagged)
    expected = {
        ("first come, first served", "all"): load / (1 - load),
        ("triage", "missed abnormal"): first / (1 - load),
        ("triage", "cleared normal"): first / (1 - load),
        ("triage", "abnormal"): 0.9 * first + 0.1 * first / (1 - load),
    }
    for key, mean in expected.items():
        low, high = found[key].mean_interval
        reach = 1.5 * (high - low) / 2  # 95 % intervals, several of them
        assert abs(found[key].mean - mean) < reach + 0.02 * mean, key


def test_longest_wait_bounds_what_a_miss_costs() -> None:
    found = table(Traffic(limit_seconds=1200))
    missed = {policy: found[policy, "missed abnormal"] for policy in ("triage", "triage with a longest wait")}
    assert missed["triage with a longest wait"].longest < missed["triage"].longest / 2
    assert found["triage with a longest wait", "abnormal"].mean < found["first come, first served", "abnormal"].mean


def test_no_miss_is_told_as_none() -> None:
    found = table(Traffic(), [0.9] * 40 + [0.1] * 60)
    assert math.isnan(found["triage", "missed abnormal"].mean)
    assert found["triage", "cleared normal"].mean > 0


def test_films_turned_away_keep_their_place() -> None:
    some = answers(SCORES)
    some.unusual[:] = True
    found = {(one.policy, one.studies): one for one in simulate(sample(LABELS), some, Traffic())}
    assert found["triage", "all"] == Wait(
        "triage",
        **{
            name: getattr(found["first come, first served", "all"], name)
            for name in ("studies", "mean", "mean_interval", "p95", "longest")
        },
    )


def test_a_sites_own_arrivals_are_replayed() -> None:
    # One every hour, read in a minute: nobody waits for long.
    found = table(Traffic(reading_seconds=60, arrived_seconds=3600.0 * np.arange(300)))
    assert found["triage", "all"].longest < 1
    assert found["triage", "cleared normal"].mean == pytest.approx(0, abs=0.05)


def test_prevalence_can_be_the_sites() -> None:
    rare = table(Traffic(prevalence=0.02))
    frequent = table(Traffic(prevalence=0.9))
    assert rare["triage", "abnormal"].mean < frequent["triage", "abnormal"].mean
