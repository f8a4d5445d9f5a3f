"""Films of the node's archive that a radiologist has reported on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from clearfilm.errors import NotAnalysable
from db import reports as kept_reports
from db.models import Instance, InstanceState, Report, ReportStatus, Study
from training.cohort import ABNORMAL, NORMAL, Candidate, Film, Selection
from training.headers import read_facts
from training.progress import Silent, Watcher, watched

_LABELS = {"no_finding": NORMAL, "finding": ABNORMAL}


@dataclass(frozen=True)
class ArchiveFilm:
    """A received film with the current reports of its study."""

    path: str
    digest: str
    state: InstanceState
    reason: str | None
    conflict: bool
    patient_id: str | None
    reports: tuple[Reported, ...]


@dataclass(frozen=True)
class Reported:
    """What a current report says."""

    number: int
    label: str | None
    rule: str | None
    tags: tuple[str, ...]
    status: ReportStatus
    """Of the report itself; of one with addenda, that of the report that they add to."""


def labelled_films(session: Session) -> Iterator[ArchiveFilm]:
    """Every film that the node holds, with the reports that count for it.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        For reading.
    """
    reports: dict[int, list[Reported]] = defaultdict(list)
    for report in session.scalars(select(Report).where(Report.superseded_by.is_(None), Report.study_id.is_not(None))):
        assert report.study_id is not None
        status = kept_reports.reading(session, report).status
        said = Reported(report.id, report.label, report.rule, tuple(report.tags or ()), status)
        reports[report.study_id].append(said)
    rows = session.execute(select(Instance, Study).join(Study, Instance.study_id == Study.id).order_by(Instance.id))
    for instance, study in rows:
        yield ArchiveFilm(
            path=instance.path,
            digest=instance.digest,
            state=instance.state,
            reason=instance.reason,
            conflict=instance.conflict,
            patient_id=(study.patient_id or "").strip() or None,
            reports=tuple(reports[study.id]),
        )


def read_archive(
    session: Session,
    root: Path,
    *,
    unknown_age: Literal["analyse", "refuse"] = "analyse",
    watcher: Watcher | None = None,
) -> Selection:
    """Analysed adult frontal films whose study has one clear report.

    The worker's gate has passed these films already; here only what is not in the database is read from them.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        For reading.
    root : pathlib.Path
        The data folder.
    unknown_age : {"analyse", "refuse"}
        As in the worker's configuration, which may have changed since.
    watcher : Watcher, optional

    Returns
    -------
    clearfilm.training.cohort.Selection
    """
    films = list(labelled_films(session))
    candidates: list[Candidate] = []
    excluded: list[tuple[str, str]] = []
    for film in watched(films, "reading headers", len(films), watcher or Silent()):
        found = _unfit(film) or _read(film, root, unknown_age)
        if isinstance(found, str):
            excluded.append((film.path, found))
        else:
            candidates.append(found)
    return Selection(candidates, excluded)


def _unfit(film: ArchiveFilm) -> str | None:
    if film.state is not InstanceState.ANALYSED:
        return f"not analysed: {film.reason}" if film.reason else "not analysed yet"
    if film.conflict:
        return "another film has the same SOP Instance UID"
    if film.patient_id is None:
        return "no patient ID"
    labels = {report.label for report in film.reports}
    if not labels:
        return "no report"
    statuses = {report.status for report in film.reports}
    if ReportStatus.PRELIMINARY in statuses:
        return "a preliminary report only"
    if ReportStatus.ADDENDUM in statuses:
        return "an addendum without its report"
    if labels == {None}:
        return "the report has no label yet: run clearfilm reports label"
    if len(labels) > 1:
        return "contradicting reports"
    return None if labels <= _LABELS.keys() else "the report is indeterminate"


def _read(film: ArchiveFilm, root: Path, unknown_age: str) -> Candidate | str:
    try:
        facts = read_facts(root / film.path)
    except NotAnalysable as error:
        return error.reason
    if not facts["age"] and unknown_age == "refuse":
        return "the patient's age is not stated"
    report = film.reports[0]
    assert film.patient_id is not None
    assert report.label is not None
    record = Film(
        file=film.path,
        sha256=film.digest,
        patient="",
        label=_LABELS[report.label],
        part="train",
        report=f"report {report.number}, rule {report.rule or 'none'}",
        tags="|".join(sorted({tag for said in film.reports for tag in said.tags})),
        **facts,
    )
    return Candidate(record, film.patient_id)
