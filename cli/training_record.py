"""`clearfilm train` leaves a record in the node's database, if there is one. Training never fails because of it."""

import getpass
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clearfilm.config import Config
from clearfilm.errors import ClearfilmError
from clearfilm.process import process_name
from clearfilm.vision.bundle import verify
from cli.terminal import complain
from db import schema, training_runs
from db.governance import RunOutcome
from db.session import Database
from training.cohort import Cohort

OWN_LABEL = "the table's own label"


class RunRecord:
    """The record of one run.

    Parameters
    ----------
    config : Config
        Names the database.
    cohort : Cohort
    out : pathlib.Path
        Run folder.
    user : str or None
        Who starts it; None: this system's user.
    """

    def __init__(self, config: Config, cohort: Cohort, out: Path, user: str | None) -> None:
        self._config, self._cohort, self._out = config, cohort, out
        self._user = user or getpass.getuser()
        self._number: int | None = None

    def begin(self) -> None:
        """The run's folder is ours now."""

        def work(database: Database, session: Session) -> None:
            run = training_runs.begin(
                session,
                folder=str(self._out.resolve()),
                cohort_digest=self._cohort.digest,
                cohort_folder=str(self._cohort.folder.resolve()),
                cohort=describe_cohort(self._cohort),
                settings=self._config.training.model_dump(mode="json"),
                started_by=self._user,
                owner=process_name(),
                now=database.now(session),
            )
            self._number = run.id

        self._write(work)

    def end(self, outcome: RunOutcome, *, detail: str | None = None, bundle: Path | None = None) -> None:
        """The run is over."""
        number = self._number
        if number is None:
            return
        digest = verify(bundle) if bundle else None

        def work(database: Database, session: Session) -> None:
            now = database.now(session)
            training_runs.end(session, number, outcome, now=now, detail=detail, bundle_digest=digest)

        self._write(work)

    def _write(self, work: Callable[[Database, Session], None]) -> None:
        try:
            with closing(Database(self._config.database_url)) as database:
                if schema.version(database) != schema.HEAD:
                    return
                with database.begin() as session:
                    work(database, session)
        except (ClearfilmError, SQLAlchemyError, OSError) as error:
            complain(f"this training is not recorded in the database: {str(error).splitlines()[0]}")


@contextmanager
def recorded(config: Config, cohort: Cohort, out: Path, user: str | None) -> Iterator[RunRecord]:
    """A record that says how the run ended when it ends with an error."""
    record = RunRecord(config, cohort, out, user)
    try:
        yield record
    except ClearfilmError as error:
        record.end(RunOutcome.FAILED, detail=str(error))
        raise
    except BaseException as error:
        record.end(RunOutcome.FAILED, detail=f"ended by {type(error).__name__}")
        raise


def describe_cohort(cohort: Cohort) -> dict[str, Any]:
    """What lineage tells of a cohort: counts by part, label and rule; no file names, no patients."""
    films: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    reports: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for film in cohort.films:
        number, _, rule = film.report.partition(", rule ")
        rule = rule or OWN_LABEL
        films[film.label][rule] += 1
        if number:
            reports[film.label][rule].add(number)
    rules = {
        label: {rule: {"films": count, "reports": len(reports[label][rule])} for rule, count in sorted(by_rule.items())}
        for label, by_rule in sorted(films.items())
    }
    manifest = cohort.manifest
    return {
        "source": manifest.source,
        "scheme": manifest.scheme,
        "split_key": manifest.split_key,
        "created": manifest.created.isoformat(),
        "films": len(cohort.films),
        "counts": manifest.counts,
        "rules": rules,
        "excluded": manifest.excluded,
    }
