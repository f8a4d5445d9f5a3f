"""Reports out of CSV and Excel files."""

import csv
import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearfilm.config import ReportColumns
from clearfilm.errors import ClearfilmError
from db.models import ReportStatus
from training.reports import import_csv, parts
from training.reports.import_csv import Row

HEADER = "accession_number,study_instance_uid,findings,impression,status,reported_at\n"


def rows(tmp_path: Path, content: str, encoding: str = "utf-8", **columns: str) -> list[Row]:
    path = tmp_path / "reports.csv"
    path.write_bytes(content.encode(encoding))
    return list(import_csv.read(path, ReportColumns(**columns)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_encoding_is_found(tmp_path: Path, encoding: str) -> None:
    (row,) = rows(tmp_path, HEADER + "A1,,两肺清晰,两肺心膈未见异常,,\n", encoding)
    assert row.report
    assert row.report.impression == "两肺心膈未见异常"


@pytest.mark.parametrize("content", [b"accession_number,text\nA,\xff\xff\n", "a,text\n".encode("utf-16"), b"a\0b"])
def test_other_encodings_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reports.csv"
    path.write_bytes(content)
    with pytest.raises(ClearfilmError, match="neither UTF-8 nor GB18030"):
        list(import_csv.read(path, ReportColumns()))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (",,a,b,,", "neither accession number nor Study Instance UID"),
        ("A,,,,,", "no text"),
        (",1.2.x,a,b,,", "not a UID"),
        ("A,,a,b,maybe,", "status"),
        ("A,,a,b,,yesterday", "time"),
        ("A,,a", "3 columns instead of 6"),
        ("A,,a,b,,,7", "7 columns"),
        (f"{'A' * 65},,a,b,,", "64 characters"),
        (f"A,,{'a' * 100_001},b,,", "100000 characters"),
        ('A,,"a"x,b,,', "not valid CSV"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_the_rest_goes_in(tmp_path: Path, line: str, reason: str) -> None:
    found = rows(tmp_path, f"{HEADER}A1,,a,b,,\n{line}\nA3,,a,b,,\n")
    assert [row.report.accession_number for row in found if row.report] == ["A1", "A3"]
    (refused,) = [row for row in found if row.report is None]
    assert refused.place == "line 3"
    assert reason in refused.refusal


def test_lines_after_a_quotation_mark_without_end_are_not_lost(tmp_path: Path) -> None:
    found = rows(tmp_path, HEADER + 'A1,,"no end,Normal,,\nA2,,,Mass,,\nA3,,,"two\nlines",,\nA4,,x"y,"Clear,,\n')
    assert [(row.place, row.report.accession_number if row.report else None) for row in found] == [
        ("line 2", None),
        ("line 3", "A2"),
        ("line 4", "A3"),
        ("line 6", None),
    ]


@given(st.lists(st.lists(st.text('ab",\n ', max_size=5), min_size=2, max_size=3), max_size=4), st.text('a",\n'))
def test_every_line_is_read_or_refused_by_its_number(table: list[list[str]], junk: str) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(table)
    records = import_csv.records(io.StringIO(stream.getvalue(), newline=""), ",")
    assert [cells for _, cells in records] == table
    numbers = [number for number, _ in import_csv.records(io.StringIO(junk, newline=""), ",")]
    assert numbers == sorted(set(numbers))
    assert all(number <= junk.count("\n") + 1 for number in numbers)


def test_columns_are_found_by_the_sites_names(tmp_path: Path) -> None:
    (row,) = rows(
        tmp_path,
        "检查号;描述;结论;审核时间\nA1;两肺清晰;未见异常;2026-03-01 12:00:00+08:00\n",
        accession_number="检查号",
        findings="描述",
        impression="结论",
        reported_at="审核时间",
    )
    assert row.report
    assert row.report.findings == "两肺清晰"
    assert row.report.reported_at == datetime(2026, 3, 1, 4, tzinfo=UTC)


def test_a_missing_key_column_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ClearfilmError, match=r"no column 'accession_number'.*'number', 'text'.*--mapping"):
        rows(tmp_path, "number,text\n1,a\n")


def test_one_text_is_split_at_its_headings(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, 'accession_number,text\nA1,"检查所见：两肺清晰。\n印象：未见异常"\n')
    assert row.report
    assert (row.report.findings, row.report.impression) == ("两肺清晰。", "未见异常")
    assert parts.split("FINDINGS: Clear. IMPRESSION: Normal.") == ("Clear", "Normal.")
    assert parts.split("Lungs clear.") == ("Lungs clear.", "")


def test_excel_numbers_are_no_fractions(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet
    sheet.append(["accession_number", "impression", "status"])
    sheet.append([4711.0, "心肺膈未见异常", "addendum"])
    sheet.append([None, "x", None])
    book.save(tmp_path / "reports.xlsx")
    good, bad = import_csv.read(tmp_path / "reports.xlsx", ReportColumns())
    assert good.report
    assert (good.report.accession_number, good.report.status) == ("4711", ReportStatus.ADDENDUM)
    assert bad.place == "line 3"


def test_a_damaged_sheet_is_one_sentence(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["accession_number", "impression"])
    book.save(tmp_path / "whole.xlsx")
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as whole, zipfile.ZipFile(tmp_path / "half.xlsx", "w") as half:
        for name in whole.namelist():
            content = whole.read(name)
            half.writestr(name, content[: len(content) // 2] if "sheet1" in name else content)
    with pytest.raises(ClearfilmError, match="cannot be read after line"):
        list(import_csv.read(tmp_path / "half.xlsx", ReportColumns()))


def test_a_file_that_is_no_workbook_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "reports.xlsx").write_bytes(b"PK\3\4 no")
    with pytest.raises(ClearfilmError, match="not a readable Excel file"):
        list(import_csv.read(tmp_path / "reports.xlsx", ReportColumns()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20260301120000+0800", datetime(2026, 3, 1, 4, tzinfo=UTC)),
        ("202603011200Z", None),
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("20261345", None),
    ],
)
def test_times(text: str, expected: datetime | None) -> None:
    if expected is None:
        with pytest.raises(ClearfilmError, match="time"):
            parts.moment(text)
    else:
        assert parts.moment(text) == expected
