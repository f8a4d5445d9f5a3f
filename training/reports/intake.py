"""Reports into the database, in small units of work: what is committed stays, and a second run adds nothing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

from db import reports
from db.reports import Matches
from db.session import Database
from training.reports.import_csv import Row

_BATCH = 100


@dataclass
class Summary:
    """What became of a file's rows."""

    added: int = 0
    known: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)  # place, reason
    matches: Matches | None = None


def take_in(database: Database, rows: Iterable[Row], advance: Callable[[int], None] = lambda _number: None) -> Summary:
    """Keep every good row and match what waits for its study.

    Parameters
    ----------
    database : Database
    rows : iterable of Row
        Read as they are kept.
    advance : callable
        Told how many more rows are done.
    """
    summary = Summary()
    source = iter(rows)
    while batch := list(islice(source, _BATCH)):
        added = 0
        with database.begin() as session:
            now = database.now(session)
            for row in batch:
                if row.report is None:
                    summary.refused.append((row.place, row.refusal))
                else:
                    added += reports.record(session, row.report, now=now)
        summary.added += added
        summary.known += sum(row.report is not None for row in batch) - added
        advance(len(batch))
    with database.begin() as session:
        summary.matches = reports.match_waiting(session)
    return summary
