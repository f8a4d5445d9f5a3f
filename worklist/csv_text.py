"""CSV that a spreadsheet opens without running anything in it."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

BOM = "\ufeff"
"""Tells Excel that the file is UTF-8."""
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def cell(value: object) -> str:
    """A value as text that no spreadsheet takes for a formula: such values get an apostrophe in front.

    Blanks in front do not hide a formula, nor do full-width signs, which some spreadsheets read as the narrow ones.
    """
    text = "" if value is None else str(value).replace("\0", "")
    return f"'{text}" if text.lstrip(" \u3000\ufeff").startswith(_STARTS) else text


def lines(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A file, line by line, with a mark of its encoding in front."""
    yield BOM + _line(heads)
    for row in rows:
        yield _line([cell(value) for value in row])


def _line(values: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerow(values)
    return buffer.getvalue()
