"""Radiologists' reports: kept once, superseded by later ones, matched with studies."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from db import readings
from db.models import Report, ReportAudit, ReportSource, ReportStatus, Study

_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
# Any fixed number, another one than the audit trail's.
_ADVISORY_LOCK = 0x636C6673
_LATIN = re.compile("[A-Za-z]{3}")


@dataclass(frozen=True)
class ReceivedReport:
    """A checked report (see `db.models.Report`); accession number or Study Instance UID is there."""

    source: ReportSource
    status: ReportStatus
    findings: str
    impression: str
    accession_number: str | None = None
    study_instance_uid: str | None = None
    patient_id: str | None = None
    reported_at: datetime | None = None


@dataclass(frozen=True)
class Matches:
    """What became of the waiting reports."""

    matched: int
    ambiguous: int  # the accession number names several studies
    contradicted: int  # the study belongs to another patient
    waiting: int


@dataclass(frozen=True)
class Reading:
    """What counts of a study's reports: the current one with the texts that it adds to."""

    report_id: int
    study_id: int | None
    findings: str
    impression: str
    status: ReportStatus
    label: str | None


def record(session: Session, report: ReceivedReport, *, now: datetime) -> bool:
    """Keep a report, match it if its study is there, and settle which one is current.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    report : ReceivedReport
    now : datetime
        Aware UTC.

    Returns
    -------
    bool
        False if the same report is here already; nothing was written then.
    """
    if session.get_bind().dialect.name == "postgresql":
        # Two reports of one study at once must see each other. SQLite has one writer anyway.
        session.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    digest = _digest(report)
    if session.scalars(select(Report.id).where(Report.digest == digest)).first() is not None:
        return False
    row = Report(
        **vars(report), digest=digest, language=language(f"{report.findings} {report.impression}"), received_at=now
    )
    session.add(row)
    session.flush()
    _match(session, [row])
    _settle(session, row)
    return True


def match_waiting(session: Session) -> Matches:
    """Match the reports that wait for their study; cheap when no study has come.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    """
    identity = or_(
        Report.study_instance_uid == Study.study_instance_uid,
        and_(Report.study_instance_uid.is_(None), Report.accession_number == Study.accession_number),
    )
    candidates = session.scalars(
        select(Report).where(Report.study_id.is_(None), select(Study.id).where(identity).exists()).order_by(Report.id)
    ).all()
    matched, ambiguous, contradicted = _match(session, candidates)
    for report in candidates:
        if report.study_id is not None:
            _settle(session, report)
    waiting = session.scalar(select(func.count()).select_from(Report).where(Report.study_id.is_(None)))
    return Matches(matched, ambiguous, contradicted, waiting or 0)


def current(session: Session, *, lexicon_version: str | None = None) -> Iterator[Reading]:
    """The reports that count.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
    lexicon_version : str, optional
        Only those that have no label of this lexicon.
    """
    wanted = select(Report.id).where(Report.superseded_by.is_(None)).order_by(Report.id)
    if lexicon_version is not None:
        wanted = wanted.where(or_(Report.label.is_(None), Report.lexicon_version != lexicon_version))
    for number in session.scalars(wanted).all():
        yield reading(session, session.get_one(Report, number))


def reading(session: Session, report: Report) -> Reading:
    """A current report together with the texts that it adds to, oldest first."""
    texts = _added_to(session, report) if report.status is ReportStatus.ADDENDUM else [report]
    return Reading(
        report_id=report.id,
        study_id=report.study_id,
        findings="\n".join(text.findings for text in texts if text.findings),
        impression="\n".join(text.impression for text in texts if text.impression),
        status=texts[0].status,
        label=report.label,
    )


def set_label(
    session: Session, report_id: int, *, label: str, rule: str, span: str, tags: Sequence[str], lexicon_version: str
) -> None:
    """Store the label of a current report."""
    session.execute(
        update(Report)
        .where(Report.id == report_id)
        .values(label=label, rule=rule, span=span, tags=list(tags), lexicon_version=lexicon_version)
    )


def record_audit(session: Session, report_id: int, *, reader: str, label: str, now: datetime) -> bool:
    """Keep a human reader's label; False if there is no such report."""
    if session.get(Report, report_id) is None:
        return False
    known = session.scalars(
        select(ReportAudit).where(ReportAudit.report_id == report_id, ReportAudit.reader == reader)
    ).one_or_none()
    if known is None:
        session.add(ReportAudit(report_id=report_id, reader=reader, label=label, recorded_at=now))
    else:
        known.label, known.recorded_at = label, now
    session.flush()
    return True


def audited(session: Session) -> list[tuple[int, str, str]]:
    """Reports that a human reader has labelled: number, label of the rules, the reader's; oldest audit first."""
    rows = session.execute(
        select(Report.id, Report.label, ReportAudit.label)
        .join(ReportAudit, ReportAudit.report_id == Report.id)
        .where(Report.label.is_not(None))
        .order_by(ReportAudit.recorded_at, ReportAudit.id)
    )
    return [(number, rule or "", reader) for number, rule, reader in rows]


def counts(session: Session) -> dict[str, int]:
    """Current reports by label; those without one under "unlabelled"."""
    rows = session.execute(
        select(Report.label, func.count()).where(Report.superseded_by.is_(None)).group_by(Report.label)
    ).all()
    return {label or "unlabelled": number for label, number in rows}


def language(text: str) -> str:
    """Language of a report by its letters: zh, en or mixed."""
    chinese, latin = _CHINESE.search(text), _LATIN.search(text)
    if chinese:
        return "mixed" if latin else "zh"
    return "en"


def _digest(report: ReceivedReport) -> str:
    content = [
        report.accession_number,
        report.study_instance_uid,
        report.patient_id,
        report.status.value,
        report.reported_at.isoformat() if report.reported_at else None,
        report.findings,
        report.impression,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _match(session: Session, reports: Sequence[Report]) -> tuple[int, int, int]:
    matched = ambiguous = contradicted = 0
    for report in reports:
        by_uid = Study.study_instance_uid == report.study_instance_uid
        by_accession = Study.accession_number == report.accession_number
        wanted = by_uid if report.study_instance_uid else by_accession
        found = session.execute(select(Study.id, Study.patient_id).where(wanted).limit(50)).all()
        fitting = [study for study in found if _same_patient(report.patient_id, study.patient_id)]
        if len(fitting) == 1:
            report.study_id = fitting[0].id
            matched += 1
        elif fitting:
            ambiguous += 1
        elif found:
            contradicted += 1
    session.flush()
    return matched, ambiguous, contradicted


def _same_patient(one: str | None, other: str | None) -> bool:
    return not one or not other or one.strip() == other.strip()


def _settle(session: Session, report: Report) -> None:
    """Decide which of a study's reports is current; a label goes when the text that it was made from does."""
    *others, chosen = _siblings(session, report)
    if chosen.superseded_by is not None or any(other.superseded_by != chosen.id for other in others):
        for row in (*others, chosen):
            row.superseded_by = None if row is chosen else chosen.id
            row.label = row.rule = row.span = row.tags = row.lexicon_version = None
    session.flush()
    if report.study_id is not None:
        readings.reported(session, [report.study_id], now=report.received_at)


def _siblings(session: Session, report: Report) -> list[Report]:
    """All reports of the same study in the order in which they count; the last one is current."""
    same: list[ColumnElement[bool]] = [Report.id == report.id]
    if report.study_id is not None:
        same.append(Report.study_id == report.study_id)
    if report.study_instance_uid:
        same.append(Report.study_instance_uid == report.study_instance_uid)
    if report.accession_number:
        same.append(Report.accession_number == report.accession_number)
    found = [one for one in session.scalars(select(Report).where(or_(*same))) if _same_study(one, report)]
    final = [one for one in found if one.status is ReportStatus.FINAL]
    base = max(final or [one for one in found if one.status is ReportStatus.PRELIMINARY] or found, key=_order)

    def rank(one: Report) -> tuple[int, datetime, int]:
        if one is base:
            return (1, *_order(one))
        later = one.status is ReportStatus.ADDENDUM and _order(one) > _order(base)
        return (2 if later else 0, *_order(one))

    return sorted(found, key=rank)


def _same_study(one: Report, other: Report) -> bool:
    """One accession number may hold several studies, and several sites may use one number."""
    if not _same_patient(one.patient_id, other.patient_id):
        return False
    if one.study_id is not None and other.study_id is not None:
        return one.study_id == other.study_id
    uids = {one.study_instance_uid, other.study_instance_uid} - {None}
    return len(uids) < 2


def _order(report: Report) -> tuple[datetime, int]:
    return report.reported_at or report.received_at, report.id


def _added_to(session: Session, addendum: Report) -> list[Report]:
    """The report that an addendum adds to, and all addenda up to it."""
    siblings = _siblings(session, addendum)
    at = max(
        (place for place, one in enumerate(siblings) if one.status is not ReportStatus.ADDENDUM),
        default=0,
    )
    return siblings[at:]
