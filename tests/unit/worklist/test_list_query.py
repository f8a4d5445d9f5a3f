"""The address of a list says all, and nothing in it breaks the list."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.listing import Filter, Finding, Order, Progress, Rank, Readers, Sorting
from worklist import list_query
from worklist.list_query import ListQuery, read

FILTERS = st.builds(
    Filter,
    text=st.sampled_from(["", "zhang san", "p0001"]),
    progress=st.lists(st.sampled_from(Progress), unique=True).map(lambda found: tuple(sorted(found))),
    readers=st.lists(st.sampled_from(Readers), unique=True).map(lambda found: tuple(sorted(found))),
    finding=st.lists(st.sampled_from(Finding), unique=True).map(lambda found: tuple(sorted(found))),
    level=st.lists(st.sampled_from(Rank), unique=True).map(lambda found: tuple(sorted(found))),
    sender=st.sampled_from(["", "room 1"]),
    location=st.sampled_from(["", "急诊", "a&b=c"]),
    sex=st.sampled_from(["", *list_query.SEXES]),
    age_from=st.none() | st.integers(0, 130),
    age_to=st.none() | st.integers(0, 130),
    mine=st.booleans(),
    # Of the address's period, when it is asked for.
    received_from=st.none(),
    received_before=st.none(),
)
QUERIES = st.builds(
    ListQuery,
    FILTERS,
    when=st.sampled_from(["", "today", *list_query.PERIODS]),
    sorting=st.builds(Sorting, st.sampled_from(Order), st.booleans()),
)


@given(QUERIES)
def test_an_address_gives_the_same_list_again(query: ListQuery) -> None:
    assert read(parse_qsl(query.address())) == (query, [])


@given(st.lists(st.tuples(st.sampled_from([*list_query.FIELDS, "other"]), st.text()), max_size=8))
def test_any_address_gives_a_list(pairs: list[tuple[str, str]]) -> None:
    query, _ = read(pairs)
    assert read(parse_qsl(query.address()))[1] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("age_from", "-1"),
        ("age_to", "1e3"),
        ("sort", "drop"),
        ("level", "9"),
        ("from", "2026-13-01"),
        ("after", "%%%"),
        ("q", "x" * 129),
    ],
)
def test_nonsense_is_named_and_left_out(name: str, value: str) -> None:
    assert read([(name, value), ("sex", "F")]) == (ListQuery(Filter(sex="F")), [name])


def test_names_that_nobody_knows_are_not_repeated() -> None:
    assert read([("<script>", "1")])[1] == ["…"]
