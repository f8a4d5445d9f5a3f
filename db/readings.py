"""What readers do with studies: opened, agreed, disagreed, reported. Functions take a session and never commit."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ForeignKey, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.models import Base, Reading, Report, ReportStatus, Study


class Opening(Base):
    """Who has opened which study."""

    __tablename__ = "openings"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)
    opened_at: Mapped[datetime] = mapped_column(comment="last time")


def opened(session: Session, study_id: int, user_id: int, *, reads: bool, now: datetime) -> None:
    """Note that somebody looked at a study.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
    study_id, user_id : int
    reads : bool
        A radiologist, whose look counts; others look on.
    now : datetime
        Aware.
    """
    session.merge(Opening(study_id=study_id, user_id=user_id, opened_at=now))
    session.flush()
    if reads:
        session.execute(
            update(Study).where(Study.id == study_id, Study.reading.is_(None)).values(reading=Reading.OPENED)
        )


def judged(session: Session, study_id: int, *, agrees: bool | None, now: datetime) -> None:
    """Note a radiologist's verdict: the study waits no more. A report counts more than a verdict.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
    study_id : int
    agrees : bool or None
        None: with an answer that has not come or is withheld; only that the study was read is noted then.
    now : datetime
        Aware.
    """
    if agrees is None:
        reading = Reading.OPENED
    else:
        reading = Reading.AGREED if agrees else Reading.DISAGREED
    session.execute(
        update(Study)
        .where(Study.id == study_id, Study.reading.is_distinct_from(Reading.REPORTED))
        .values(reading=reading, read_at=now)
    )


def unjudged(session: Session, study_id: int) -> None:
    """Note that a verdict was taken back."""
    session.execute(
        update(Study)
        .where(Study.id == study_id, Study.reading.is_distinct_from(Reading.REPORTED))
        .values(reading=Reading.OPENED, read_at=None)
    )


def reported(session: Session, study_ids: Iterable[int], *, now: datetime) -> None:
    """Note reports that came or were matched: those of these studies that have a final one wait no more."""
    final = (
        select(Report.id)
        .where(Report.study_id == Study.id, Report.superseded_by.is_(None), Report.status != ReportStatus.PRELIMINARY)
        .exists()
    )
    session.execute(
        update(Study)
        .where(Study.id.in_(sorted(set(study_ids))), Study.reading.is_distinct_from(Reading.REPORTED), final)
        .values(reading=Reading.REPORTED, read_at=now)
        .execution_options(synchronize_session=False)
    )
