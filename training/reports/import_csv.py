"""Reports out of CSV and Excel files, row by row; a bad row is refused by its line, the rest goes in."""

import codecs
import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clearfilm.config import ReportColumns
from clearfilm.errors import ClearfilmError, RefusedReport
from db.models import ReportSource
from db.reports import ReceivedReport
from training.reports import parts

EXCEL_SUFFIXES = frozenset({".xlsx", ".xlsm"})
_CHUNK = 1 << 20
_MAXIMUM_FIELD = 1 << 20
# GB18030 gives nearly every byte sequence a meaning; these are what a wrong guess turns into.
_NOT_TEXT = re.compile("[\ue000-\uf8ff\ufffd\x00]")


@dataclass(frozen=True)
class Row:
    """One row of a file: a report, or the reason why it is refused; `place` is for the user: "line 12"."""

    place: str
    report: ReceivedReport | None
    refusal: str = ""


def encoding_of(path: Path) -> str:
    """UTF-8 or GB18030, whichever the whole file is, strictly.

    Raises
    ------
    ClearfilmError
        If it is neither.
    """
    for encoding in ("utf-8-sig", "gb18030"):
        if _is(path, encoding):
            return encoding
    raise ClearfilmError(f"{path}: is neither UTF-8 nor GB18030 text; save it as CSV UTF-8")


def _is(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                if _NOT_TEXT.search(decoder.decode(chunk)):
                    return False
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def count_lines(path: Path) -> int | None:
    """Lines of a text file, for the progress bar; None for a spreadsheet."""
    if path.suffix.lower() in EXCEL_SUFFIXES:
        return None
    with path.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(_CHUNK), b""))


def read(path: Path, columns: ReportColumns) -> Iterator[Row]:
    """Read a file of reports.

    Parameters
    ----------
    path : pathlib.Path
        ``.xlsx`` and ``.xlsm``: the first sheet. Everything else: CSV, separated by comma, semicolon or tab.
    columns : ReportColumns
        What the columns are called; case and outer blanks do not matter.

    Yields
    ------
    Row
        In the order of the file.

    Raises
    ------
    ClearfilmError
        If the file cannot be read, or has no key or no text column.
    """
    table = _excel(path) if path.suffix.lower() in EXCEL_SUFFIXES else csv_rows(path)
    places: dict[str, int] | None = None
    width = 0
    for line, values in table:
        if places is None:
            if values is None:
                raise ClearfilmError(f"{path}: the first line is not a line of column names")
            places, width = _places(path, values, columns), len(values)
        elif values is None:
            yield Row(
                f"line {line}", None, "the line is not valid CSV (a quotation mark that does not end, or a huge field)"
            )
        elif any(value.strip() for value in values):
            yield _row(line, values, places, width)
    if places is None:
        raise ClearfilmError(f"{path}: is empty")


def _row(line: int, values: list[str], places: Mapping[str, int], width: int) -> Row:
    if len(values) != width:
        return Row(f"line {line}", None, f"{len(values)} columns instead of {width}")
    cell = {name: values[place] for name, place in places.items()}
    findings, impression = cell.get("findings", ""), cell.get("impression", "")
    if not findings.strip() and not impression.strip():
        findings, impression = parts.split(cell.get("text", ""))
    try:
        report = parts.checked(
            ReportSource.CSV,
            findings=findings,
            impression=impression,
            accession_number=cell.get("accession_number", ""),
            study_instance_uid=cell.get("study_instance_uid", ""),
            patient_id=cell.get("patient_id", ""),
            report_status=parts.status(cell.get("status", "")),
            reported_at=parts.moment(cell.get("reported_at", "")),
        )
    except RefusedReport as error:
        return Row(f"line {line}", None, str(error))
    return Row(f"line {line}", report)


def _places(path: Path, header: list[str], columns: ReportColumns) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    wanted = {field: str(name).strip().lower() for field, name in columns.model_dump().items()}
    places = {field: names.index(name) for field, name in wanted.items() if name in names}
    repeated = sorted({name for name in wanted.values() if names.count(name) > 1})
    if repeated:
        raise ClearfilmError(f"{path}: these columns occur more than once: {', '.join(repeated)}")
    for needed in (("accession_number", "study_instance_uid"), ("findings", "impression", "text")):
        if not places.keys() & set(needed):
            wanted_names = " or ".join(repr(wanted[field]) for field in needed)
            raise ClearfilmError(
                f"{path}: no column {wanted_names}; it has {', '.join(map(repr, names[:50]))}; "
                f"map them with --mapping {needed[0]}=NAME or reports.columns"
            )
    return places


def csv_rows(path: Path) -> Iterator[tuple[int, list[str] | None]]:
    """Line numbers and cells of a CSV file; None where the line is no CSV.

    Raises
    ------
    ClearfilmError
        If the file cannot be read.
    """
    csv.field_size_limit(_MAXIMUM_FIELD)
    try:
        with path.open(encoding=encoding_of(path), newline="") as stream:
            first = stream.readline(_MAXIMUM_FIELD)
            stream.seek(0)
            yield from records(stream, max(",;\t", key=first.count))
    except OSError as error:
        raise ClearfilmError(f"{path}: cannot be read: {error.strerror}") from error


def records(stream: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str] | None]]:
    """Records of CSV with the lines that they begin at; None where a line is no CSV.

    Lines that a quotation mark without end has swallowed are read again.
    """
    lines = iter(stream)
    waiting: deque[str] = deque()  # to be read again
    taken: list[str] = []  # by the record in hand

    def feed() -> Iterator[str]:
        while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
            taken.append(line)
            yield line

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    number = 1
    while True:
        try:
            cells = next(reader, None)
            if cells is None:
                return
        except csv.Error:
            cells = None
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        yield number, cells
        number += len(taken)
        taken.clear()


def _excel(path: Path) -> Iterator[tuple[int, list[str] | None]]:
    try:
        import openpyxl
    except ImportError as error:
        raise ClearfilmError("Excel files need the package openpyxl: pip install 'clearfilm[reports]'") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # it raises whatever zipfile and the XML parser raise
        raise ClearfilmError(f"{path}: is not a readable Excel file ({type(error).__name__})") from error
    line = 0
    try:
        for line, cells in enumerate(book.worksheets[0].iter_rows(values_only=True), 1):
            yield line, [_text(cell) for cell in cells]
    except Exception as error:  # as above; of a damaged sheet only when it is read
        raise ClearfilmError(f"{path}: cannot be read after line {line} ({type(error).__name__})") from error
    finally:
        book.close()


def _text(cell: object) -> str:
    """Excel keeps numbers as floating point: accession number 4711 comes as 4711.0."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
