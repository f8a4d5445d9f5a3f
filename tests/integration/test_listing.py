"""The list on SQLite and on PostgreSQL: order, filters, pages."""

from datetime import UTC, datetime, timedelta

import pytest

from clearfilm.triage import Decision
from db import listed, listing
from db.listed import Step
from db.listing import Filter, Finding, Order, Progress, Rank, Readers, Sorting, Viewpoint
from db.models import Reading, Study, StudyState
from db.session import Database

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ACTIVE = Viewpoint(NOW, NOW - timedelta(days=30), user_id=1, shows=True, orders=True)
SUPERVISED = Viewpoint(NOW, NOW - timedelta(days=30), user_id=1, shows=True, orders=False)
SHADOW = Viewpoint(NOW, NOW - timedelta(days=30), user_id=1, shows=False, orders=False)


def study(number: int, waited: int, **changes: object) -> Study:
    received = NOW - waited * MINUTE
    values = {
        "id": number,
        "study_instance_uid": f"1.2.{number}",
        "patient_name": f"Zhang^{number}",
        "patient_id": f"P{number:03d}",
        "search": f"p{number:03d}\nzhang {number}",
        "first_received_at": received,
        "last_received_at": received,
        "state": StudyState.CONCLUDED,
        "decision": Decision.SIGNIFICANT_FINDING,
        "revision": 1,
        "concluded_at": received + MINUTE / 2,
    }
    return Study(**{**values, **changes})


@pytest.fixture
def filled(database: Database) -> Database:
    clear = Decision.NO_SIGNIFICANT_FINDING
    with database.begin() as session:
        session.add_all(
            [
                study(1, 10),
                study(2, 60, decision=clear, lowered_until=NOW + 30 * MINUTE),
                study(3, 300, decision=clear, lowered_until=NOW - MINUTE),
                study(4, 5, priority=2),
                study(5, 20, priority=1, patient_sex="F", age_years=45.5),
                study(6, 30, decision=clear, withheld=True),
                study(7, 40, reading=Reading.REPORTED, read_at=NOW, withheld=True, decision=clear),
                study(8, 50, state=StudyState.FAILED, sender="room-1"),
                study(9, 70 * 24 * 60, location="急诊"),
                study(10, 80, delivered_at=NOW),
            ]
        )
    return database


def numbers(database: Database, wanted: Filter, view: Viewpoint = ACTIVE, sorting: Sorting | None = None) -> list[int]:
    with database.read() as session:
        found = listing.section(session, wanted, sorting or Sorting(), view, limit=50)
        assert listing.count(session, wanted, view) == len(found.places)
    return [place.study_id for place in found.places]


def test_later_ones_come_last_in_the_active_stage_and_return_to_their_place_by_arrival(filled: Database) -> None:
    """Study 3 is at its limit: behind the STAT and urgent orders and the older finding, before the younger ones."""
    assert numbers(filled, Filter()) == [4, 5, 9, 3, 10, 8, 7, 6, 1, 2]


def test_without_the_active_stage_order_is_by_arrival_within_what_humans_ordered(filled: Database) -> None:
    assert numbers(filled, Filter(), SUPERVISED) == [4, 5, 9, 3, 10, 2, 8, 7, 6, 1]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(text="zhang 3"), {3}),
        (Filter(text="p00%"), set()),
        (Filter(text="\u202e"), set()),
        (Filter(readers=(Readers.UNREAD,)), {1, 2, 3, 4, 5, 6, 8, 10}),
        (Filter(readers=(Readers.REPORTED,)), {7}),
        (Filter(finding=(Finding.NO_SIGNIFICANT_FINDING,)), {2, 3, 7}),
        (Filter(finding=(Finding.NONE,)), {6, 8}),
        (Filter(progress=(Progress.FAILED,)), {8}),
        (Filter(progress=(Progress.DELIVERED,)), {10}),
        (Filter(progress=(Progress.OPEN,)), {6}),
        (Filter(level=(Rank.LIMIT, Rank.LATER)), {2, 3}),
        (Filter(sex="F"), {5}),
        (Filter(age_from=45, age_to=45), {5}),
        (Filter(age_from=46), set()),
        (Filter(sender="room-1"), {8}),
        (Filter(location="急诊"), {9}),
        (Filter(received_from=NOW - 20 * MINUTE), {1, 4, 5}),
        (Filter(mine=True), set()),
    ],
)
def test_filters(filled: Database, wanted: Filter, found: set[int]) -> None:
    assert set(numbers(filled, wanted)) == found


def test_nobody_sees_answers_in_the_shadow_stage_before_the_report(filled: Database) -> None:
    assert numbers(filled, Filter(finding=(Finding.NO_SIGNIFICANT_FINDING,)), SHADOW) == [7]
    assert numbers(filled, Filter(finding=(Finding.SIGNIFICANT_FINDING,)), SHADOW) == []


def test_a_withheld_study_looks_like_one_whose_answer_has_not_come(filled: Database) -> None:
    with filled.read() as session:
        places = listing.among(session, [6], Filter(), Sorting(), ACTIVE)
        row = listed.rows(session, places, ACTIVE)[0]
    assert (row.decision, row.flagged, row.step) == (None, False, Step.QUEUED)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("descending", [False, True])
def test_pages_join_without_gap_and_overlap(filled: Database, order: Order, descending: bool) -> None:
    sorting = Sorting(order, descending)
    whole = numbers(filled, Filter(), ACTIVE, sorting)
    joined: list[int] = []
    after = None
    with filled.read() as session:
        for _ in range(len(whole)):
            part = listing.section(session, Filter(), sorting, ACTIVE, limit=3, after=after)
            joined += [place.study_id for place in part.places]
            if not part.more:
                break
            after = part.places[-1].key
    assert joined == whole
