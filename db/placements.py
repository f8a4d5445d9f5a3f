"""Where studies stand in the list, and why.

A row is never changed but for the time at which another one took its place. What a reader sees is less than
what a row says, never more: a study is lower only while the stage is active, the study is concluded, and its
longest wait is not over, whether or not the process that works by the clock is alive.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, false, func, or_, select, update
from sqlalchemy.orm import Session

from clearfilm.policy import rules
from clearfilm.policy.rules import Level, Placement, Reason
from clearfilm.policy.stages import Stage
from db import queue
from db.models import Delivery, ModelBundle, Report, ReportStatus, Result, Study, StudyPlacement, StudyState


@dataclass(frozen=True)
class Placed:
    """A placement with what it was decided by."""

    study_id: int
    revision: int
    placement: Placement
    bundle_digest: str | None
    operating_point: float | None
    decided_at: datetime


def record(session: Session, study: Study, placement: Placement, model: ModelBundle | None, *, now: datetime) -> None:
    """Keep where a study's present revision stands; what was before is superseded. The caller commits."""
    point = (model.operating_point or {}).get("threshold") if model else None
    made_by = {
        "model_id": model.id if model else None,
        "bundle_digest": model.digest if model else None,
        "operating_point": point,
    }
    _replace(session, study.id, study.revision, placement, made_by, now)


def current(session: Session, study_id: int) -> Placed | None:
    """The placement of a study that counts, as it was decided; None: it was never concluded."""
    row = session.scalars(_current().where(StudyPlacement.study_id == study_id)).one_or_none()
    return _placed(row) if row else None


def history(session: Session, study_id: int) -> list[Placed]:
    """All placements of a study, oldest first."""
    of_study = select(StudyPlacement).where(StudyPlacement.study_id == study_id).order_by(StudyPlacement.id)
    return [_placed(row) for row in session.scalars(of_study)]


def is_later(stage: Stage, *, now: datetime) -> ColumnElement[bool]:
    """SQL: the study is lower in the list at this moment; for `Study` joined with its current placement."""
    if stage is not Stage.ACTIVE:
        return false()
    return and_(
        Study.state == StudyState.CONCLUDED,
        StudyPlacement.level == Level.LATER,
        StudyPlacement.revision == Study.revision,
        StudyPlacement.returns_at > now,
    )


def is_shown(stage: Stage) -> ColumnElement[bool]:
    """SQL: readers see the tag at this moment; joined as for `is_later`."""
    if not stage.shows:
        return false()
    return and_(Study.state == StudyState.CONCLUDED, StudyPlacement.shown, StudyPlacement.revision == Study.revision)


def return_overdue(session: Session, *, now: datetime) -> list[int]:
    """Put every study whose longest wait is over back at its place; gives the studies. The caller commits.

    Studies that have their report are left alone: they do not wait any more.
    """
    overdue = _current().where(
        StudyPlacement.level == Level.LATER, StudyPlacement.returns_at <= now, ~_has_report(StudyPlacement.study_id)
    )
    rows = session.scalars(overdue.order_by(StudyPlacement.returns_at)).all()
    for row in rows:
        _follow(session, row, rules.returned(_placement(row), now=now), now)
    return [row.study_id for row in rows]


def step_down(session: Session, stage: Stage, *, now: datetime) -> int:
    """Put every study that is lower back at its place, because the policy went down; gives their number."""
    rows = session.scalars(_current().where(StudyPlacement.level == Level.LATER)).all()
    for row in rows:
        _follow(session, row, rules.stepped_down(_placement(row), stage), now)
    return len(rows)


def disagree(session: Session, study_id: int, *, now: datetime) -> None:
    """A reader denies what put the study where it is: back at its usual place, without the tag."""
    row = session.scalars(_current().where(StudyPlacement.study_id == study_id)).one_or_none()
    if row is not None and (row.shown or row.level is Level.LATER):
        _follow(session, row, rules.disagreed(_placement(row)), now)


def lowered(session: Session) -> list[Study]:
    """Studies that are lower and that nobody has read, in the order of their return."""
    return list(
        session.scalars(
            select(Study)
            .join(StudyPlacement, StudyPlacement.study_id == Study.id)
            .where(
                StudyPlacement.superseded_at.is_(None),
                StudyPlacement.level == Level.LATER,
                Study.state == StudyState.CONCLUDED,
                Study.read_at.is_(None),
            )
            .order_by(StudyPlacement.returns_at)
        )
    )


def guard(session: Session, study: Study, rule: str, words: str, subject: str = "", *, now: datetime) -> bool:
    """Put a lowered study back, because a guard speaks now, and have it concluded anew, so that the PACS hears it.

    Returns
    -------
    bool
        False: the study is not lower.
    """
    row = session.scalars(_current().where(StudyPlacement.study_id == study.id)).one_or_none()
    if row is None or row.level is not Level.LATER or study.state is not StudyState.CONCLUDED:
        return False
    _follow(session, row, rules.guarded(_placement(row), rule, words, subject), now)
    queue.request_conclusion(session, study.id, run_after=now, priority=study.priority, now=now)
    return True


def end_blind(session: Session, *, received_before: datetime, now: datetime) -> list[int]:
    """Show the answers about studies of the blind share that have no report after the longest time; gives them.

    The caller commits.
    """
    overdue = (
        _current()
        .join(Study, Study.id == StudyPlacement.study_id)
        .where(
            StudyPlacement.blind,
            StudyPlacement.withheld,
            Study.state == StudyState.CONCLUDED,
            Study.first_received_at <= received_before,
            ~_has_report(Study.id),
        )
    )
    rows = session.scalars(overdue.order_by(StudyPlacement.study_id)).all()
    for row in rows:
        _follow(session, row, rules.unblinded(_placement(row)), now)
    return [row.study_id for row in rows]


def blind_and_told(session: Session) -> list[Study]:
    """Studies of the blind share that have their report, or were in it for long enough, with results never sent."""
    sent = select(Delivery.id).join(Result, Delivery.result_id == Result.id).where(Result.study_id == Study.id).exists()
    blind = select(StudyPlacement.study_id).where(StudyPlacement.superseded_at.is_(None), StudyPlacement.blind)
    return list(
        session.scalars(
            select(Study)
            .where(
                Study.id.in_(blind),
                Study.state == StudyState.CONCLUDED,
                or_(~Study.withheld, _has_report(Study.id)),
                ~sent,
            )
            .order_by(Study.id)
        )
    )


def counts(session: Session, stage: Stage, *, now: datetime) -> dict[str, int]:
    """Concluded studies: all that were placed, tagged, shown as such, lower now, in the blind share."""
    numbers = session.execute(
        select(
            func.count(),
            _number(StudyPlacement.tagged),
            _number(is_shown(stage)),
            _number(is_later(stage, now=now)),
            _number(StudyPlacement.blind),
        )
        .select_from(Study)
        .join(StudyPlacement, StudyPlacement.study_id == Study.id)
        .where(StudyPlacement.superseded_at.is_(None), Study.state == StudyState.CONCLUDED)
    ).one()
    return dict(zip(("placed", "tagged", "shown", "later", "blind"), numbers, strict=True))


def as_json(placed: Placed) -> dict[str, Any]:
    """For programs."""
    placement = placed.placement
    return {
        "level": placement.level.value,
        "tagged": placement.tagged,
        "shown": placement.shown,
        "blind": placement.blind,
        "withheld": placement.withheld,
        "returns_at": placement.returns_at,
        "reasons": [{"rule": reason.rule, "words": reason.words} for reason in placement.reasons],
        "stage": placement.stage.value,
        "policy_version": placement.policy_version,
        "bundle_digest": placed.bundle_digest,
        "operating_point": placed.operating_point,
        "revision": placed.revision,
        "decided_at": placed.decided_at,
    }


def _number(condition: Any) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _current() -> Any:
    return select(StudyPlacement).where(StudyPlacement.superseded_at.is_(None))


def _has_report(study_id: Any) -> ColumnElement[bool]:
    return (
        select(Report.id)
        .where(
            Report.study_id == study_id,
            Report.superseded_by.is_(None),
            Report.status != ReportStatus.PRELIMINARY,
        )
        .exists()
    )


def _follow(session: Session, row: StudyPlacement, placement: Placement, now: datetime) -> None:
    made_by = {
        "model_id": row.model_id,
        "bundle_digest": row.bundle_digest,
        "operating_point": row.operating_point,
    }
    _replace(session, row.study_id, row.revision, placement, made_by, now)


def _replace(
    session: Session, study_id: int, revision: int, placement: Placement, made_by: dict[str, Any], now: datetime
) -> None:
    session.execute(
        update(StudyPlacement)
        .where(StudyPlacement.study_id == study_id, StudyPlacement.superseded_at.is_(None))
        .values(superseded_at=now)
    )
    session.add(
        StudyPlacement(
            study_id=study_id,
            revision=revision,
            level=placement.level,
            tagged=placement.tagged,
            shown=placement.shown,
            blind=placement.blind,
            withheld=placement.withheld,
            returns_at=placement.returns_at,
            reasons=[asdict(reason) for reason in placement.reasons],
            stage=placement.stage,
            policy_version=placement.policy_version,
            decided_at=now,
            **made_by,
        )
    )
    session.flush()
    _show(session, study_id, placement)


def _show(session: Session, study_id: int, placement: Placement) -> None:
    """What the list sorts by. A time that is over stays: the study comes first, and its wait is the reason."""
    shown: dict[str, Any] = {"withheld": placement.withheld}
    has_returned = placement.shown and placement.stage is Stage.ACTIVE and placement.level is not Level.LATER
    if not has_returned:
        shown["lowered_until"] = placement.returns_at
    session.execute(update(Study).where(Study.id == study_id).values(shown))


def _placed(row: StudyPlacement) -> Placed:
    return Placed(row.study_id, row.revision, _placement(row), row.bundle_digest, row.operating_point, row.decided_at)


def _placement(row: StudyPlacement) -> Placement:
    return Placement(
        level=row.level,
        tagged=row.tagged,
        shown=row.shown,
        blind=row.blind,
        withheld=row.withheld,
        returns_at=row.returns_at,
        reasons=tuple(Reason(reason["rule"], reason["words"], reason.get("subject", "")) for reason in row.reasons),
        stage=row.stage,
        policy_version=row.policy_version,
    )
