"""What bundles said week by week: the share below the operating point, and how far a shadow agrees."""

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from clearfilm.triage import Decision
from db.models import Analysis, Instance, ModelBundle, Report, Study

_SIDES = {0: Decision.NO_SIGNIFICANT_FINDING, 1: Decision.SIGNIFICANT_FINDING}


@dataclass(frozen=True)
class Week:
    """One week (UTC, from Monday) of one bundle."""

    monday: date
    studies: int
    below: int
    agreeing: int  # on the side of their conclusion


def weeks(session: Session, bundle: ModelBundle, since: datetime) -> list[Week]:
    """Weeks in which the bundle read something, oldest first; a study counts in the week of its latest reading."""
    read = (
        select(
            Instance.study_id,
            func.max(case((Analysis.above, 1), else_=0)).label("above"),
            func.max(Analysis.created_at).label("at"),
        )
        .join(Instance, Instance.id == Analysis.instance_id)
        .where(Analysis.model_id == bundle.id, Analysis.created_at >= since)
        .group_by(Instance.study_id)
        .subquery()
    )
    day = func.date(read.c.at)
    rows = session.execute(
        select(day, read.c.above, Study.decision, func.count())
        .join(Study, Study.id == read.c.study_id)
        .group_by(day, read.c.above, Study.decision)
    ).all()
    studies: Counter[date] = Counter()
    below: Counter[date] = Counter()
    agreeing: Counter[date] = Counter()
    for when, above, decision, count in rows:
        found = when if isinstance(when, date) else date.fromisoformat(when)
        monday = found - timedelta(days=found.weekday())
        studies[monday] += count
        below[monday] += 0 if above else count
        agreeing[monday] += count if decision is _SIDES[above] else 0
    return [Week(monday, studies[monday], below[monday], agreeing[monday]) for monday in sorted(studies)]


def share_with_finding(session: Session) -> tuple[float, int] | None:
    """Share of reported studies with a finding at this site, and how many reports say either; None: none does."""
    found = session.execute(
        select(Report.label, func.count())
        .where(Report.superseded_by.is_(None), Report.label.in_(["finding", "no_finding"]))
        .group_by(Report.label)
    )
    rows = {label: count for label, count in found}  # noqa: C416 - rows are not pairs for type checkers
    total = sum(rows.values())
    return (rows.get("finding", 0) / total, total) if total else None
