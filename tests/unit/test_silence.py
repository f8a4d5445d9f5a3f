"""When a sender counts as silent."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearfilm.forecast import days_left
from clearfilm.silence import missed_hours

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def office(weeks: int, *, skip: set[int] = frozenset()) -> set[datetime]:  # type: ignore[assignment]
    """A film in each hour from 8 to 17, Monday to Friday; days in `skip` are holidays."""
    return {
        MONDAY + timedelta(days=day, hours=hour)
        for day in range(weeks * 7)
        if day % 7 < 5 and day not in skip
        for hour in range(8, 18)
    }


def test_hours_in_which_it_usually_sends_are_counted() -> None:
    heard = office(4)
    monday = MONDAY + timedelta(weeks=4)
    assert missed_hours(heard, monday + 8 * HOUR) == pytest.approx(0)
    assert missed_hours(heard, monday + 11 * HOUR) == pytest.approx(3, abs=0.01)


def test_nights_and_weekends_are_no_silence() -> None:
    sunday_night = MONDAY + timedelta(weeks=4) - HOUR
    assert missed_hours(office(4), sunday_night) == pytest.approx(0)


def test_hour_that_is_heard_every_second_week_counts_half() -> None:
    odd = {MONDAY + timedelta(weeks=week, hours=12) for week in (0, 2)}
    always = {MONDAY + timedelta(weeks=week, hours=3) for week in range(5)}
    missed = missed_hours(odd | always, MONDAY + timedelta(weeks=4, hours=14))
    assert missed == pytest.approx(0.5)


def test_nothing_is_expected_of_a_new_sender() -> None:
    assert missed_hours(office(1), MONDAY + timedelta(weeks=3)) is None
    assert missed_hours(set(), MONDAY) is None


@given(st.sets(st.integers(0, 8 * 7 * 24 - 1), max_size=300), st.integers(0, 500))
def test_silence_never_shrinks_with_time(hours: set[int], later: int) -> None:
    heard = {MONDAY + hour * HOUR for hour in hours}
    now = max(heard, default=MONDAY) + HOUR
    first, second = missed_hours(heard, now), missed_hours(heard, now + later * HOUR)
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert 0 <= first <= second <= later + 1


def test_disk_lasts_until_the_line_meets_the_mark() -> None:
    samples = [(MONDAY + timedelta(hours=hour), 100e9 - hour / 24 * 1e9) for hour in range(0, 73, 6)]
    assert days_left(samples, 20e9) == pytest.approx(77)
    assert days_left(samples, 99e9) == 0


@pytest.mark.parametrize("slope", [0, 1e9])
def test_disk_that_does_not_shrink_has_no_forecast(slope: float) -> None:
    assert days_left([(MONDAY + timedelta(days=day), 1e9 + day * slope) for day in range(5)], 5e8) is None


def test_forecast_needs_a_day() -> None:
    assert days_left([(MONDAY + hour * HOUR, 1e9 - hour) for hour in range(12)], 0) is None
