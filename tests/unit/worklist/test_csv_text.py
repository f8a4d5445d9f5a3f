"""A file that no spreadsheet runs."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from worklist.csv_text import BOM, cell, lines

DANGEROUS = ("=", "+", "-", "@", "\t", "\r")


@given(st.sampled_from(DANGEROUS), st.text())
def test_no_cell_begins_like_a_formula(start: str, rest: str) -> None:
    assert cell(start + rest).startswith("'")


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_what_was_written_is_read_back_but_for_the_apostrophe(values: list[str]) -> None:
    text = "".join(lines(["head"] * len(values), [values]))
    assert text.startswith(BOM)
    read = list(csv.reader(io.StringIO(text.removeprefix(BOM), newline="")))
    assert read[1] == [cell(value) for value in values]


def test_harmless_text_stays_as_it_is() -> None:
    assert cell("王^小明") == "王^小明"
    assert cell(None) == ""
    assert cell("  =1+1") == "'  =1+1"
