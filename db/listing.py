"""The list of studies: which ones, in what order, a page at a time.

Filters and orders are answered from `ix_studies_list` alone; the wide rows are read for one page only. A page is
continued from its last row (keyset), so that page 100 costs what page 1 does, and nothing is counted beyond
`MOST_COUNTED`.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, false, func, literal, not_, or_, select, true, tuple_
from sqlalchemy.orm import Session

from clearfilm.errors import UsageError
from clearfilm.names import search_terms
from clearfilm.triage import Decision
from db.models import Outstanding, Reading, Study, StudyPlacement, StudyState
from db.readings import Opening

MOST_COUNTED = 1000


class Progress(enum.StrEnum):
    """Where the node has got to with a study."""

    OPEN = "open"  # received, queued, or being analysed
    CONCLUDED = "concluded"
    DELIVERED = "delivered"
    FAILED = "failed"


class Readers(enum.StrEnum):
    """Where its readers have got to."""

    UNREAD = "unread"  # neither reported nor judged, and not older than the list goes
    OPENED = "opened"
    AGREED = "agreed"
    DISAGREED = "disagreed"
    REPORTED = "reported"


class Finding(enum.StrEnum):
    """What readers are told, which may be less than what the node knows."""

    SIGNIFICANT_FINDING = "significant_finding"
    NO_SIGNIFICANT_FINDING = "no_significant_finding"
    NOT_ANALYSED = "not_analysed"
    NONE = "none"


class Rank(enum.IntEnum):
    """Levels of the list in the order of reading."""

    STAT = 0
    HIGH = 1
    LIMIT = 2  # was to be read later, and has waited as long as it may: read by arrival among the usual ones
    USUAL = 3
    LATER = 4


class Order(enum.StrEnum):
    """What the list can be sorted by."""

    TRIAGE = "triage"  # level, then wait
    RECEIVED = "received"
    PATIENT = "patient"
    NUMBER = "number"  # Patient ID
    AGE = "age"


@dataclass(frozen=True)
class Viewpoint:
    """Who looks, when, and what the stage of the policy lets them see."""

    now: datetime
    unread_since: datetime
    """Older studies without a report do not count as unread."""
    user_id: int
    shows: bool
    """Readers see answers and flags."""
    orders: bool
    """The list's order follows them."""


@dataclass(frozen=True)
class Filter:
    """Which studies; empty fields take all. Several values of one field: any of them."""

    text: str = ""
    progress: tuple[Progress, ...] = ()
    readers: tuple[Readers, ...] = ()
    finding: tuple[Finding, ...] = ()
    level: tuple[Rank, ...] = ()
    sender: str = ""
    location: str = ""
    sex: str = ""
    age_from: int | None = None
    age_to: int | None = None  # until the next birthday
    received_from: datetime | None = None
    received_before: datetime | None = None
    mine: bool = False


@dataclass(frozen=True)
class Sorting:
    """An order and its direction."""

    by: Order = Order.TRIAGE
    descending: bool = False


@dataclass(frozen=True)
class Place:
    """A study in the list; `key` is what it is sorted by, and continues a page after it."""

    study_id: int
    rank: Rank
    key: tuple[Any, ...]


@dataclass(frozen=True)
class Section:
    """A part of the list."""

    places: tuple[Place, ...]
    more: bool


def section(
    session: Session,
    wanted: Filter,
    sorting: Sorting,
    viewpoint: Viewpoint,
    *,
    limit: int,
    after: Sequence[Any] | None = None,
) -> Section:
    """A page of the list.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        For reading.
    wanted : Filter
    sorting : Sorting
    viewpoint : Viewpoint
    limit : int
        Most rows.
    after : sequence, optional
        Key of the row after which the page begins.

    Returns
    -------
    Section

    Raises
    ------
    UsageError
        If `after` is no key of this order.
    """
    keys = _keys(sorting, viewpoint)
    query = _matching(wanted, viewpoint, keys).limit(limit + 1)
    if after is not None:
        query = query.where(_beyond(keys, after, sorting))
    rows = session.execute(query.order_by(*(key.desc() if sorting.descending else key for key in keys))).all()
    return Section(tuple(map(_place, rows[:limit])), more=len(rows) > limit)


def among(
    session: Session, study_ids: Sequence[int], wanted: Filter, sorting: Sorting, viewpoint: Viewpoint
) -> list[Place]:
    """Those of some studies that belong to the list, in its order."""
    keys = _keys(sorting, viewpoint)
    query = _matching(wanted, viewpoint, keys).where(Study.id.in_(study_ids))
    rows = session.execute(query.order_by(*(key.desc() if sorting.descending else key for key in keys)))
    return list(map(_place, rows))


def ranks(session: Session, study_ids: Sequence[int], viewpoint: Viewpoint) -> dict[int, Rank]:
    """Levels of some studies, whether the list has them or not."""
    query = select(Study.id, _rank(viewpoint)).where(Study.id.in_(study_ids))
    return {number: Rank(rank) for number, rank in session.execute(query)}


def count(session: Session, wanted: Filter, viewpoint: Viewpoint) -> int:
    """How many studies there are, up to `MOST_COUNTED` + 1."""
    some = select(literal(1)).select_from(Study).where(*_conditions(wanted, viewpoint)).limit(MOST_COUNTED + 1)
    return session.scalar(select(func.count()).select_from(some.subquery())) or 0


def answer_is_shown(viewpoint: Viewpoint) -> ColumnElement[bool]:
    """SQL: readers see the answer about a study, be it "not analysed"."""
    concluded = and_(Study.state == StudyState.CONCLUDED, Study.decision.is_not(None))
    if not viewpoint.shows:
        return and_(concluded, Study.reading.is_not_distinct_from(Reading.REPORTED))
    return and_(concluded, not_(_is_withheld()))


def _is_withheld() -> ColumnElement[bool]:
    return and_(Study.withheld, Study.reading.is_distinct_from(Reading.REPORTED))


def oldest_unread(session: Session, viewpoint: Viewpoint) -> datetime | None:
    """When the study that waits longest was received."""
    unread = _readers(Readers.UNREAD, viewpoint)
    return session.scalar(select(Study.first_received_at).where(unread).order_by(Study.first_received_at).limit(1))


def senders(session: Session) -> list[str]:
    """Names of all senders that studies came from."""
    return _distinct(session, Study.sender)


def locations(session: Session) -> list[str]:
    """Places that studies came from."""
    return _distinct(session, Study.location)


def _distinct(session: Session, column: Any, most: int = 200) -> list[str]:
    return sorted(session.scalars(select(column).where(column.is_not(None)).distinct().limit(most)))


def _matching(wanted: Filter, viewpoint: Viewpoint, keys: tuple[Any, ...]) -> Select[Any]:
    return select(Study.id, _rank(viewpoint).label("level"), *keys).where(*_conditions(wanted, viewpoint))


def _place(row: Any) -> Place:
    return Place(row[0], Rank(row[1]), tuple(row[2:]))


def _rank(viewpoint: Viewpoint) -> ColumnElement[int]:
    concluded = Study.state == StudyState.CONCLUDED
    cases = [(Study.priority >= 2, int(Rank.STAT)), (Study.priority == 1, int(Rank.HIGH))]
    if viewpoint.orders:
        waits_on = and_(concluded, Study.read_at.is_(None), Study.lowered_until <= viewpoint.now)
        cases.append((waits_on, int(Rank.LIMIT)))
        cases.append((and_(concluded, Study.lowered_until > viewpoint.now), int(Rank.LATER)))
    return case(*cases, else_=int(Rank.USUAL))


def _turn(viewpoint: Viewpoint) -> ColumnElement[int]:
    """What is read first. One that is at its limit goes back to its place by arrival: had it a place above all
    others, then the flagged studies of a night would stand before STAT orders and older findings in the morning,
    and the bound of `clearfilm.waiting` would not hold."""
    rank = _rank(viewpoint)
    return case((rank == int(Rank.LIMIT), int(Rank.USUAL)), else_=rank) if viewpoint.orders else rank


def _keys(sorting: Sorting, viewpoint: Viewpoint) -> tuple[Any, ...]:
    # Nulls have no place of their own that all databases agree on.
    first: dict[Order, tuple[Any, ...]] = {
        Order.TRIAGE: (_turn(viewpoint), Study.first_received_at),
        Order.RECEIVED: (Study.first_received_at,),
        Order.PATIENT: (func.coalesce(Study.patient_name, ""),),
        Order.NUMBER: (func.coalesce(Study.patient_id, ""),),
        Order.AGE: (func.coalesce(Study.age_years, -1.0),),
    }
    return (*first[sorting.by], Study.id)


def _beyond(keys: tuple[Any, ...], after: Sequence[Any], sorting: Sorting) -> ColumnElement[bool]:
    if len(after) != len(keys):
        raise UsageError("the page does not continue this list; load the list again")
    values = tuple_(*(literal(value, key.type) for key, value in zip(keys, after, strict=True)))
    return tuple_(*keys) < values if sorting.descending else tuple_(*keys) > values


def _conditions(wanted: Filter, viewpoint: Viewpoint) -> list[ColumnElement[bool]]:
    found = [Study.search.contains(term, autoescape=True) for term in search_terms(wanted.text)]
    if wanted.text and not found:
        found.append(false())  # only invisible characters: nothing can hold them
    any_of: tuple[list[ColumnElement[bool]], ...] = (
        [_progress(progress, viewpoint) for progress in wanted.progress],
        [_readers(readers, viewpoint) for readers in wanted.readers],
        [_finding(finding, viewpoint) for finding in wanted.finding],
        [_level(level, viewpoint) for level in wanted.level],
    )
    found += [or_(*alternatives) for alternatives in any_of if alternatives]
    for column, value in ((Study.sender, wanted.sender), (Study.location, wanted.location)):
        if value:
            found.append(column == value)
    if wanted.sex:
        found.append(_sex(wanted.sex))
    if wanted.age_from is not None:
        found.append(Study.age_years >= wanted.age_from)
    if wanted.age_to is not None:
        found.append(Study.age_years < wanted.age_to + 1)
    if wanted.received_from is not None:
        found.append(Study.first_received_at >= wanted.received_from)
    if wanted.received_before is not None:
        found.append(Study.first_received_at < wanted.received_before)
    if wanted.mine:
        found.append(Study.id.in_(select(Opening.study_id).where(Opening.user_id == viewpoint.user_id)))
    return found


def _sex(sex: str) -> ColumnElement[bool]:
    if sex in ("F", "M"):
        return Study.patient_sex == sex
    return or_(Study.patient_sex.is_(None), Study.patient_sex.not_in(["F", "M"]))


def _progress(progress: Progress, viewpoint: Viewpoint) -> ColumnElement[bool]:
    failed = Study.outstanding == Outstanding.FAILED
    if progress is Progress.FAILED:
        return failed
    # To readers a study of the blind share is one whose answer has not come yet.
    concluded = and_(Study.state == StudyState.CONCLUDED, not_(_is_withheld()) if viewpoint.shows else true())
    if progress is Progress.OPEN:
        waits = and_(Study.state == StudyState.CONCLUDED, _is_withheld()) if viewpoint.shows else false()
        return and_(or_(Study.state == StudyState.OPEN, waits), Study.outstanding.is_distinct_from(Outstanding.FAILED))
    sent = func.coalesce(Study.delivered_at >= Study.concluded_at, false())
    if progress is Progress.DELIVERED:
        return and_(concluded, sent, Study.outstanding.is_(None))
    waiting = func.coalesce(Study.outstanding == Outstanding.WAITING, false())
    return and_(concluded, or_(waiting, and_(not_(sent), Study.outstanding.is_(None))))


def _readers(readers: Readers, viewpoint: Viewpoint) -> ColumnElement[bool]:
    if readers is Readers.UNREAD:
        return and_(Study.read_at.is_(None), Study.first_received_at >= viewpoint.unread_since)
    return Study.reading == Reading(readers.value)


def _finding(finding: Finding, viewpoint: Viewpoint) -> ColumnElement[bool]:
    shown = answer_is_shown(viewpoint)
    if finding is Finding.NONE:
        return not_(shown)
    return and_(shown, Study.decision == Decision(finding.value))


def _level(level: Rank, viewpoint: Viewpoint) -> ColumnElement[bool]:
    if level is Rank.LATER and viewpoint.shows and not viewpoint.orders:
        # The flag is shown, the order stays.
        flagged = select(StudyPlacement.study_id).where(StudyPlacement.superseded_at.is_(None), StudyPlacement.shown)
        return and_(Study.state == StudyState.CONCLUDED, Study.id.in_(flagged))
    return _rank(viewpoint) == int(level)
