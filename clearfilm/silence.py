"""Has a sender stopped? By the hours of the week in which it usually sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

LEARNED: Final = timedelta(weeks=8)
"""How far back films are looked at."""
SHORTEST: Final = timedelta(weeks=2)
"""Nothing is expected of a sender that has been known for less."""
_HOUR: Final = timedelta(hours=1)


def missed_hours(heard: Collection[datetime], now: datetime) -> float | None:
    """In how many of the hours since its last film a sender would usually have sent one.

    For each hour of the week: in what share of the weeks that are known a film came. The shares of the hours that
    have passed since the last film are added up, so that nights and week-ends count as little as they usually hold.

    Parameters
    ----------
    heard : collection of datetime.datetime
        Full hours (UTC) in which at least one film came, of the time `LEARNED` before `now`.
    now : datetime.datetime
        Aware UTC.

    Returns
    -------
    float or None
        Hours, not negative; None: nothing came, or too little time is known.
    """
    if not heard:
        return None
    first, last = min(heard), max(heard)
    if last - first < SHORTEST:
        return None
    # Whole weeks before the last film: what is expected does not sink while the sender is silent.
    weeks = (last - first) // timedelta(weeks=1)
    begin = last - weeks * timedelta(weeks=1)
    counted = Counter(_hour_of_week(hour) for hour in set(heard) if begin < hour <= last)
    missed, hour = 0.0, last + _HOUR
    while hour < now:
        share = min(counted[_hour_of_week(hour)] / weeks, 1.0)
        missed += share * min((now - hour) / _HOUR, 1.0)
        hour += _HOUR
    return missed


def _hour_of_week(moment: datetime) -> int:
    return moment.weekday() * 24 + moment.hour
