"""`clearfilm reports import | listen | label | review | audit`."""

import csv
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearfilm import config as configuration
from clearfilm import logs
from clearfilm.config import ReportColumns, Reports
from clearfilm.counts import counted
from clearfilm.errors import ClearfilmError, ConfigurationError
from clearfilm.process import notify_ready, stop_event
from cli.node import opened, prepared
from cli.terminal import complain, print_json, print_table, progress, say
from db import reports
from db.models import ReportStatus
from db.session import Database
from training.labels import audit
from training.labels.labeller import Labeller, from_config, label_current
from training.labels.rules import Label, Value
from training.labels.second_opinion import LabelledText, opinions
from training.reports import dicom_sr, import_csv
from training.reports.import_csv import Row
from training.reports.intake import take_in

_TEXTS = ("findings", "impression")
_ADDED = ("label", "rule", "span", "tags")
_SHOWN_REFUSALS = 100
_HUMAN = "human_label"


def import_reports(config_path: Path, source: Path, mapping: Sequence[str]) -> int:
    """Import a CSV or Excel file, an SR file or a folder of them.

    Returns
    -------
    int
        Exit code: 0 if no row was refused.
    """
    with prepared(config_path) as (config, database):
        labeller = from_config(config.reports)
        rows, total = _rows(source, _mapped(config.reports.columns, mapping))
        with progress() as bar:
            task = bar.add_task("importing", total=total)
            summary = take_in(database, rows, lambda number: bar.advance(task, number))
            bar.update(task, total=bar.tasks[task].completed)
        label_current(database, labeller)
    for place, reason in summary.refused[:_SHOWN_REFUSALS]:
        complain(f"{source}: {place}: refused: {reason}")
    if len(summary.refused) > _SHOWN_REFUSALS:
        complain(f"… and {len(summary.refused) - _SHOWN_REFUSALS} more")
    say(f"{summary.added} added, {summary.known} known already, {len(summary.refused)} refused")
    if summary.matches is not None:
        waiting = summary.matches
        say(
            f"{_waiting(waiting.waiting)} (several studies fit {waiting.ambiguous}, "
            f"another patient than their study's is named in {waiting.contradicted})"
        )
    return 1 if summary.refused else 0


def listen(config_path: Path) -> None:
    """Take HL7 messages until SIGTERM."""
    logs.configure("reports")
    os.umask(0o077)
    stop = stop_event()
    try:
        from training.reports import hl7_listener
    except ImportError as error:
        raise ClearfilmError("this needs the package hl7: pip install 'clearfilm[hl7]'") from error

    with prepared(config_path) as (config, database):

        def ready(port: int) -> None:
            complain(f"ready: HL7 on {config.reports.listener.address}:{port}")
            notify_ready()

        hl7_listener.listen(config.reports.listener, database, from_config(config.reports), stop, ready)


def label_csv(config_path: Path | None, source: Path, out: Path) -> int:
    """Label a CSV file: the same columns, and label, rule, span, tags.

    Returns
    -------
    int
        Exit code: 0 if every row could be read.
    """
    labeller = from_config(_settings(config_path))
    table = _Table(source)
    kept = [name for name in table.header if name not in _ADDED]
    rules: Counter[str] = Counter()
    with _replacing(out) as stream, progress() as bar:
        task = bar.add_task("labelling", total=import_csv.count_lines(source))
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*kept, *_ADDED])
        for row in table.rows():
            label = labeller.label(row["findings"], row["impression"])
            writer.writerow([*(row[name] for name in kept), *_cells(label)])
            rules[f"{label.label.value}: {label.rule}"] += 1
            bar.advance(task)
        bar.update(task, total=bar.tasks[task].completed)
    _print_rules(rules, labeller)
    for line in table.refused:
        complain(f"{source}: line {line}: refused: it has not as many columns as the first line, or is not valid CSV")
    return 1 if table.refused else 0


def label_database(config_path: Path, *, as_json: bool) -> None:
    """Match waiting reports, label the current ones anew where the lexicon has changed, print the counts."""
    with opened(config_path) as (config, database):
        labeller = from_config(config.reports)
        with database.begin() as session:
            matches = reports.match_waiting(session)
        label_current(database, labeller)
        with database.read() as session:
            counts = reports.counts(session)
    if as_json:
        print_json({"labels": counts, "waiting": matches.waiting, "version": labeller.version})
        return
    print_table(
        f"lexicon {labeller.version}", ["label", "reports"], [[name, number] for name, number in counts.items()]
    )
    say(_waiting(matches.waiting))


def _waiting(number: int) -> str:
    return "1 report waits for its study" if number == 1 else f"{number} reports wait for their study"


def review(config_path: Path | None, source: Path | None, out: Path) -> None:
    """Write the reports on which the second opinion disagrees with the rules, the most certain first."""
    found = opinions(_labelled(config_path, source))
    doubted = sorted((one for one in found if one.disagrees), key=lambda one: -one.certainty)
    with _replacing(out) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["report_id", "findings", "impression", "label", "finding_probability"])
        for one in doubted:
            text = one.report
            row = [text.report_id, text.findings, text.impression, text.label, f"{one.finding_probability:.3f}"]
            writer.writerow(row)
    decided = sum(one.report.label != Value.INDETERMINATE for one in found)
    say(f"{len(doubted)} of {decided} decided reports are labelled otherwise by the second opinion: {out}")


def draw_audit(config_path: Path | None, source: Path | None, out: Path, number: int, seed: int) -> None:
    """Write a random sample of reports without their labels, to be filled in."""
    drawn = audit.sample(_labelled(config_path, source), number, seed)
    with _replacing(out) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["report_id", *_TEXTS, _HUMAN])
        writer.writerows([text.report_id, text.findings, text.impression, ""] for text in drawn)
    values = ", ".join(value.value for value in Value)
    say(f"{counted(len(drawn), 'report')} in {out}: fill in {_HUMAN} ({values}), then --score {out}")


def score_audit(config_path: Path | None, filled: Path, user: str | None, *, as_json: bool) -> None:
    """Compare the filled-in labels with the rules; with a user also keep them in the database."""
    labeller = from_config(_settings(config_path))
    table = _Table(filled, needed=("report_id", *_TEXTS, _HUMAN))
    rows = [row for row in table.rows() if row[_HUMAN].strip()]
    wrong = sorted({row[_HUMAN] for row in rows} - {value.value for value in Value})
    if wrong or table.refused:
        raise ClearfilmError(
            f"{filled}: {_HUMAN} must be one of {', '.join(Value)}; found {', '.join(wrong) or 'bad lines'}"
        )
    if not rows:
        raise ClearfilmError(f"{filled}: no {_HUMAN} is filled in")
    rules = {row["report_id"]: labeller.label(row["findings"], row["impression"]).label.value for row in rows}
    reader = {row["report_id"]: row[_HUMAN] for row in rows}
    if user is not None:
        if config_path is None:
            raise ConfigurationError("labels are kept in the node's database: name its configuration with --config")
        _record(config_path, reader, user)
    found = audit.score(rules, reader)
    estimates = {"precision": found.precision, "recall": found.recall, "kappa": found.kappa}
    if as_json:
        values = {name: vars(estimate) if estimate else None for name, estimate in estimates.items()}
        print_json({"reports": found.reports, **values, "disagreements": found.disagreements})
        return
    say(f"{counted(found.reports, 'report')}, lexicon {labeller.version}")
    for name, estimate in estimates.items():
        say(f"{name}: {_interval(estimate)}")
    say(f"disagreements: {', '.join(found.disagreements) or 'none'}")


def _record(config_path: Path, labels: dict[str, str], user: str) -> None:
    with opened(config_path) as (_, database), database.begin() as session:
        now = database.now(session)
        for name, label in labels.items():
            if not name.isdigit() or not reports.record_audit(session, int(name), reader=user, label=label, now=now):
                raise ClearfilmError(f"the database has no report {name!r}; leave --user out for other files")


def _interval(estimate: audit.Estimate | None) -> str:
    if estimate is None:
        return "not defined"
    return f"{estimate.value:.3f} (95 % interval {estimate.low:.3f} to {estimate.high:.3f})"


def _rows(source: Path, columns: ReportColumns) -> tuple[Iterable[Row], int | None]:
    if source.is_dir():
        total = len(dicom_sr.files_of(source))
        if not total:
            raise ClearfilmError(f"{source}: holds no DICOM file")
        return dicom_sr.read_folder(source), total
    if not source.is_file():
        raise ClearfilmError(f"{source}: there is no such file")
    if source.suffix.lower() == ".dcm":
        return [dicom_sr.read_file(source)], 1
    return import_csv.read(source, columns), import_csv.count_lines(source)


def _mapped(columns: ReportColumns, mapping: Sequence[str]) -> ReportColumns:
    changes: dict[str, str] = {}
    for one in mapping:
        name, separator, column = one.partition("=")
        if not separator or not column or name not in ReportColumns.model_fields:
            known = ", ".join(ReportColumns.model_fields)
            raise ConfigurationError(f"--mapping {one!r}: it has the form NAME=COLUMN with NAME one of {known}")
        changes[name] = column
    return columns.model_copy(update=changes)


def _settings(config_path: Path | None) -> Reports:
    """Labelling files needs no node: without a configuration the defaults count."""
    return Reports() if config_path is None else configuration.load(config_path).reports


def _labelled(config_path: Path | None, source: Path | None) -> list[LabelledText]:
    """All reports of a file, or the current final ones of the database, with the labels of the rules."""
    if source is not None:
        labeller = from_config(_settings(config_path))
        table = _Table(source)
        found = [
            LabelledText(row["report_id"], row["findings"], row["impression"], _label(labeller, row).label.value)
            for row in table.rows()
        ]
        if table.refused:
            raise ClearfilmError(f"{source}: bad lines: {', '.join(map(str, table.refused[:20]))}")
        return found
    if config_path is None:
        raise ConfigurationError("name the configuration of the node with --config, or a file with --csv")
    with opened(config_path) as (config, database):
        label_current(database, from_config(config.reports))
        return _of_database(database)


def _of_database(database: Database) -> list[LabelledText]:
    with database.read() as session:
        return [
            LabelledText(str(one.report_id), one.findings, one.impression, one.label or Value.INDETERMINATE.value)
            for one in reports.current(session)
            if one.status is ReportStatus.FINAL
        ]


def _label(labeller: Labeller, row: dict[str, str]) -> Label:
    return labeller.label(row["findings"], row["impression"])


def _cells(label: Label) -> list[str]:
    return [label.label.value, label.rule, label.span, ";".join(label.tags)]


def _print_rules(rules: Counter[str], labeller: Labeller) -> None:
    rows: list[list[object]] = [[name, number] for name, number in rules.most_common()]
    print_table(f"lexicon {labeller.version}", ["label: rule", "reports"], rows)


class _Table:
    """A CSV file with a line of column names; bad lines are passed over and remembered."""

    def __init__(self, path: Path, needed: Sequence[str] = ("report_id", *_TEXTS)) -> None:
        if not path.is_file():
            raise ClearfilmError(f"{path}: there is no such file")
        self._lines = import_csv.csv_rows(path)
        _, header = next(self._lines, (1, None))
        self.header = [name.strip() for name in header or []]
        missing = [name for name in needed if self.header.count(name) != 1]
        if missing:
            raise ClearfilmError(f"{path}: needs one column each of {', '.join(needed)}; wrong: {', '.join(missing)}")
        self.refused: list[int] = []

    def rows(self) -> Iterator[dict[str, str]]:
        for line, cells in self._lines:
            if cells == []:
                continue
            if cells is None or len(cells) != len(self.header):
                self.refused.append(line)
            else:
                yield dict(zip(self.header, cells, strict=True))


@contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """A text file that is there whole or not at all."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", newline="", delete=False
        ) as stream:
            temporary = Path(stream.name)
            try:
                yield stream
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        temporary.replace(path)
    except OSError as error:
        raise ClearfilmError(f"{path}: cannot be written: {error.strerror}") from error
