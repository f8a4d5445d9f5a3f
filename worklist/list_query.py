"""The address of a list: filters, order and place as query parameters, and back. Nothing in it names a patient
unless somebody searched for one."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from typing import Any, Final, TypeVar
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from clearfilm.names import fold
from db.listing import Filter, Finding, Order, Progress, Rank, Readers, Sorting
from worklist.templates import N_

MOST_TEXT: Final = 128
OLDEST: Final = 130
LEVELS: Final[Mapping[str, Rank]] = {rank.name.lower(): rank for rank in Rank}
PERIODS: Final[Mapping[str, timedelta]] = {"24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
SEXES: Final = ("F", "M", "O")
ALL_STUDIES: Final = Filter()
ARRIVAL_BY_LEVEL: Final = Sorting()
Choice = TypeVar("Choice", bound=enum.StrEnum)


@dataclass(frozen=True)
class ListQuery:
    """What an address asks for. Times of day count in the viewer's zone, which the address does not have."""

    wanted: Filter = ALL_STUDIES
    """Without its times of arrival, which come of the next three."""
    when: str = ""
    day_from: date | None = None
    day_to: date | None = None
    sorting: Sorting = ARRIVAL_BY_LEVEL
    after: tuple[Any, ...] | None = None

    def filter(self, now: datetime, zone: ZoneInfo) -> Filter:
        """For the database."""
        received_from, received_before = self._period(now, zone)
        return replace(self.wanted, received_from=received_from, received_before=received_before)

    def address(self, **changes: Any) -> str:
        """Canonical query string of this list, with some of its fields changed; without the place in it."""
        return urlencode(list(_pairs(replace(self, after=None, **changes))))

    def _period(self, now: datetime, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
        if self.when == "today":
            return datetime.combine(now.astimezone(zone).date(), clock(), zone).astimezone(UTC), None
        if self.when:
            return now - PERIODS[self.when], None
        return _midnight(self.day_from, zone), _midnight(self.day_to, zone, days=1)


def _midnight(day: date | None, zone: ZoneInfo, days: int = 0) -> datetime | None:
    return datetime.combine(day + timedelta(days), clock(), zone).astimezone(UTC) if day else None


def _pairs(query: ListQuery) -> Iterable[tuple[str, str]]:
    wanted = query.wanted
    several: tuple[tuple[str, Iterable[str]], ...] = (
        ("q", [wanted.text] if wanted.text else []),
        ("level", [rank.name.lower() for rank in wanted.level]),
        ("read", [readers.value for readers in wanted.readers]),
        ("finding", [finding.value for finding in wanted.finding]),
        ("state", [progress.value for progress in wanted.progress]),
    )
    for name, values in several:
        yield from ((name, value) for value in values)
    for name, value in (
        ("sender", wanted.sender),
        ("location", wanted.location),
        ("sex", wanted.sex),
        ("age_from", wanted.age_from),
        ("age_to", wanted.age_to),
        ("when", query.when),
        ("from", query.day_from),
        ("to", query.day_to),
    ):
        if value not in ("", None):
            yield name, str(value)
    if wanted.mine:
        yield "mine", "1"
    if query.sorting.by is not Order.TRIAGE:
        yield "sort", query.sorting.by.value
    if query.sorting.descending:
        yield "order", "desc"


def read(pairs: Iterable[tuple[str, str]]) -> tuple[ListQuery, list[str]]:
    """What an address asks for, and the names of parameters that make no sense; those are left out.

    Parameters
    ----------
    pairs : iterable of (str, str)
        Names and values, decoded. Empty values are what a form sends for "all".

    Returns
    -------
    ListQuery
    list of str
        Sorted; unknown names as "…", since anybody may have typed them.
    """
    fields: dict[str, Any] = {}
    wrong: set[str] = set()
    for name, value in pairs:
        if not value.strip() and name in _READERS:
            continue
        reader = _READERS.get(name)
        try:
            if reader is None:
                raise ValueError
            reader(fields, value)
        except ValueError:
            wrong.add(name if reader else "…")
    sorting = Sorting(fields.pop("sort", Order.TRIAGE), fields.pop("descending", False))
    wanted = Filter(**{name: fields.pop(name) for name in _FILTERS & fields.keys()})
    query = ListQuery(wanted, **fields, sorting=sorting)
    if query.when and (query.day_from or query.day_to):
        query = replace(query, when="")
    return query, sorted(wrong)


def _one(field: str, convert: Callable[[str], Any]) -> Callable[[dict[str, Any], str], None]:
    def take(fields: dict[str, Any], value: str) -> None:
        fields[field] = convert(value)

    return take


def _many(field: str, convert: Callable[[str], Any]) -> Callable[[dict[str, Any], str], None]:
    def take(fields: dict[str, Any], value: str) -> None:
        found = convert(value)
        fields[field] = tuple(sorted({*fields.get(field, ()), found}))

    return take


def _among(allowed: Iterable[str]) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value not in allowed:
            raise ValueError
        return value

    return convert


def _text(value: str) -> str:
    if len(value) > MOST_TEXT:
        raise ValueError
    return " ".join(fold(value).split())


def _word(value: str) -> str:
    if len(value) > MOST_TEXT or not value.isprintable():
        raise ValueError
    return value


def _level(value: str) -> Rank:
    if value not in LEVELS:
        raise ValueError
    return LEVELS[value]


def _age(value: str) -> int:
    if not (value.isascii() and value.isdecimal()) or len(value) > 3 or int(value) > OLDEST:
        raise ValueError
    return int(value)


def _day(value: str) -> date:
    day = date.fromisoformat(value)
    if not 1900 <= day.year <= 2200:
        raise ValueError
    return day


def write_key(key: tuple[Any, ...]) -> str:
    """A key of the list for an address."""
    values = [value.isoformat() if isinstance(value, datetime) else value for value in key]
    return base64.urlsafe_b64encode(json.dumps(values, ensure_ascii=False).encode()).decode().rstrip("=")


def _read_key(value: str) -> tuple[Any, ...]:
    """The parts of a key; their types are checked, since anybody may have made it."""
    try:
        values = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except (binascii.Error, RecursionError) as error:
        raise ValueError from error
    if not isinstance(values, list) or not all(type(part) in (str, int, float) for part in values):
        raise ValueError
    return tuple(values)


def key_for(query: ListQuery) -> tuple[Any, ...] | None:
    """The place after which the list goes on, as the database compares it; None: from the beginning.

    Raises
    ------
    ValueError
        If the key belongs to another order.
    """
    if query.after is None:
        return None
    types = _KEY_TYPES[query.sorting.by]
    if len(types) != len(query.after):
        raise ValueError
    return tuple(_as(kind, part) for kind, part in zip(types, query.after, strict=True))


def _as(kind: type, part: Any) -> Any:
    if kind is datetime:
        moment = datetime.fromisoformat(part) if isinstance(part, str) else None
        if moment is None or moment.tzinfo is None:
            raise ValueError
        return moment
    if kind is float and type(part) in (int, float):
        return float(part)
    if kind is int and type(part) is int and -(2**31) < part < 2**62:
        return part
    if kind is str and isinstance(part, str) and "\0" not in part:
        return part
    raise ValueError


_KEY_TYPES: Final[Mapping[Order, tuple[type, ...]]] = {
    Order.TRIAGE: (int, datetime, int),
    Order.RECEIVED: (datetime, int),
    Order.PATIENT: (str, int),
    Order.NUMBER: (str, int),
    Order.AGE: (float, int),
}
_READERS: Final[Mapping[str, Callable[[dict[str, Any], str], None]]] = {
    "q": _one("text", _text),
    "level": _many("level", _level),
    "read": _many("readers", Readers),
    "finding": _many("finding", Finding),
    "state": _many("progress", Progress),
    "sender": _one("sender", _word),
    "location": _one("location", _word),
    "sex": _one("sex", _among(SEXES)),
    "age_from": _one("age_from", _age),
    "age_to": _one("age_to", _age),
    "when": _one("when", _among(("today", *PERIODS))),
    "from": _one("day_from", _day),
    "to": _one("day_to", _day),
    "mine": _one("mine", lambda value: _among(("1",))(value) == "1"),
    "sort": _one("sort", Order),
    "order": _one("descending", lambda value: _among(("asc", "desc"))(value) == "desc"),
    "after": _one("after", _read_key),
}
_FILTERS: Final = frozenset(field.name for field in dataclasses.fields(Filter))
FIELDS: Final = (*_READERS,)
PARAMETERS_IN_WORDS: Final = N_("The address asks for something that makes no sense; left out: {names}.")
