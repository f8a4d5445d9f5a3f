"""What readers say about answers: agree or disagree, and results that they correct.

A verdict is about the answer of one revision. Rows are kept: the last one of a user that was not withdrawn
counts. Functions take a session and never commit.

What a reader sees can be said before there is an answer: a study whose answer is withheld must look like one whose
answer has not come, so both are asked about in the same way. Such a verdict is about the next revision; it is kept
as agreement with "significant finding", and `settle` compares it with the answer when that comes. A film that comes
in between makes it void: its reader has not seen that film.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, ForeignKey, Index, Select, String, Text, and_, func, or_, select, true, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from clearfilm.errors import StaleAnswer
from clearfilm.triage import Decision
from db import placements, queue, readings
from db.accounts import User
from db.models import (
    Analysis,
    Base,
    Id,
    Instance,
    Job,
    JobKind,
    JobState,
    Study,
    StudyPlacement,
    StudyState,
    states,
)
from db.policy_tables import PolicyStep

CORRECTION_DELAY: Final = timedelta(seconds=10)
"""How long a corrected result can be called off."""


class Verdict(Base):
    """One reader's word about one answer."""

    __tablename__ = "verdicts"
    __table_args__ = (Index("ix_verdicts_study_id_revision", "study_id", "revision"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    revision: Mapped[int] = mapped_column(comment="of the study's conclusion")  # 0: void, see `settle`
    answer: Mapped[Decision] = mapped_column(states(Decision), comment="of that revision")
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    agrees: Mapped[bool]
    blind: Mapped[bool] = mapped_column(comment="given before the reader was shown the answer")
    corrects: Mapped[bool] = mapped_column(comment="a corrected result is sent")
    comment: Mapped[str] = mapped_column(Text, comment="stays at this node")
    token: Mapped[str] = mapped_column(String(64), unique=True, comment="of the form: sent twice, it counts once")
    at: Mapped[datetime] = mapped_column(index=True)
    withdrawn_at: Mapped[datetime | None]

    @property
    def finding(self) -> bool:
        """Whether the reader sees a significant finding."""
        return (self.answer is Decision.SIGNIFICANT_FINDING) is self.agrees


@dataclass(frozen=True)
class Given:
    """A verdict with the name of its reader."""

    id: int
    user_id: int
    user: str
    revision: int
    answer: Decision
    agrees: bool
    blind: bool
    corrects: bool
    comment: str
    at: datetime
    withdrawn_at: datetime | None
    finding: bool


@dataclass(frozen=True)
class Correction:
    """The answer of a person that replaces the one of the algorithm."""

    verdict_id: int
    user_id: int
    user: str
    decision: Decision
    revision: int  # that was corrected
    at: datetime


def give(
    session: Session,
    study: Study,
    *,
    revision: int,
    user_id: int,
    agrees: bool,
    token: str,
    now: datetime,
    comment: str = "",
    blind: bool = False,
    corrects: bool = False,
) -> Verdict:
    """Keep a verdict; the same token again changes nothing and gives the one that is there.

    A disagreement puts the study back at its usual place, also if it is withdrawn later.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits, and has locked the study's row.
    study : Study
    revision : int
        Of the answer that the reader saw.
    user_id : int
    agrees : bool
    token : str
        At most 64 characters; random, of the form that was sent.
    now : datetime
        Aware UTC.
    comment : str
    blind : bool
        The answer is not shown to the reader now. Kept as blind only if it was not shown before either: the
        first verdict shows it, and taking that back hides it from the page, not from the reader's memory.
    corrects : bool
        Have a corrected result sent after `CORRECTION_DELAY`. Only a disagreement corrects.

    Returns
    -------
    Verdict

    Raises
    ------
    StaleAnswer
        If the study has another answer by now, or none that one could agree with.
    """
    known = session.scalars(select(Verdict).where(Verdict.token == token)).one_or_none()
    if known is not None:
        if (known.study_id, known.user_id) != (study.id, user_id):
            raise StaleAnswer("this form belongs to another case")
        return known
    answer = study.decision
    if study.state is not StudyState.CONCLUDED or revision != study.revision or answer is None:
        raise StaleAnswer("the answer has changed meanwhile; look at it again")
    if answer is Decision.NOT_ANALYSED:
        raise StaleAnswer("this study was not analysed: there is no answer to agree or disagree with")
    verdict = Verdict(
        study_id=study.id,
        revision=revision,
        answer=answer,
        user_id=user_id,
        agrees=agrees,
        blind=blind and not _was_told(session, study, user_id),
        corrects=corrects and not agrees,
        comment=comment,
        token=token,
        at=now,
    )
    before = correction(session, study)
    session.add(verdict)
    session.flush()
    readings.judged(session, study.id, agrees=agrees if _is_told(session, study) else None, now=now)
    if not agrees:
        placements.disagree(session, study.id, now=now)
    if correction(session, study) != before:
        _have_corrected(session, study, now=now)
    return verdict


def see(session: Session, study: Study, *, user_id: int, finding: bool, token: str, now: datetime) -> Verdict:
    """Keep what a reader sees who is shown no answer, be it that none has come or that it is withheld.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits, has locked the study's row, and has made sure that the reader saw all of its films.
    study : Study
    user_id : int
    finding : bool
        The reader sees a significant finding.
    token : str
        As for `give`.
    now : datetime
        Aware UTC.

    Returns
    -------
    Verdict
        Blind, unless the reader had been shown an answer about this study before.

    Raises
    ------
    StaleAnswer
        If the token is another case's, or the study has failed or was not analysed.
    """
    if study.state is StudyState.CONCLUDED:
        agrees = (study.decision is Decision.SIGNIFICANT_FINDING) is finding
        of_answer = study.revision
        return give(
            session, study, revision=of_answer, user_id=user_id, agrees=agrees, token=token, now=now, blind=True
        )
    known = session.scalars(select(Verdict).where(Verdict.token == token)).one_or_none()
    if known is not None:
        if (known.study_id, known.user_id) != (study.id, user_id):
            raise StaleAnswer("this form belongs to another case")
        return known
    if study.state is not StudyState.OPEN:
        raise StaleAnswer("the answer has changed meanwhile; look at it again")
    verdict = Verdict(
        study_id=study.id,
        revision=judged_revision(study),
        answer=Decision.SIGNIFICANT_FINDING,
        user_id=user_id,
        agrees=finding,
        blind=not _was_told(session, study, user_id),
        corrects=False,
        comment="",
        token=token,
        at=now,
    )
    session.add(verdict)
    session.flush()
    readings.judged(session, study.id, agrees=None, now=now)
    return verdict


def settle(session: Session, study: Study, *, now: datetime) -> None:
    """Compare what readers said before the answer of this revision came with that answer.

    To be called when a study has been concluded and placed; the caller commits, and has locked the study's row.
    """
    early = list(
        session.scalars(
            select(Verdict)
            .where(Verdict.study_id == study.id, Verdict.revision == study.revision)
            .order_by(Verdict.id)
            .with_for_update()
        )
    )
    for verdict in early:
        if verdict.at < study.last_received_at:
            verdict.revision, verdict.withdrawn_at = 0, verdict.withdrawn_at or now
        elif study.state is not StudyState.CONCLUDED:
            verdict.revision += 1  # a film came during the conclusion, and the reader has seen it
        else:
            finding = verdict.finding
            assert study.decision is not None
            verdict.answer = study.decision
            verdict.agrees = (study.decision is Decision.SIGNIFICANT_FINDING) is finding
    session.flush()
    said = present(session, study)
    if study.state is not StudyState.CONCLUDED or study.decision is Decision.NOT_ANALYSED or not said:
        return
    if _is_told(session, study):
        readings.judged(session, study.id, agrees=said[-1].agrees, now=said[-1].at)
    if not all(given.agrees for given in said):
        placements.disagree(session, study.id, now=now)


def judged_revision(study: Study) -> int:
    """The answer that verdicts are about now: the present one, or the next one while the study is open."""
    return study.revision if study.state is StudyState.CONCLUDED else study.revision + 1


def present(session: Session, study: Study) -> list[Given]:
    """What counts about the answer that a study has, or is to get: the last verdict of each user, oldest first."""
    said = standing(session, study.id, judged_revision(study))
    if study.state is StudyState.CONCLUDED:
        return said
    return [given for given in said if given.at >= study.last_received_at]


def _was_told(session: Session, study: Study, user_id: int) -> bool:
    """Whether a reader has been shown an answer about this study; in off and shadow nothing does.

    Each answer that was not withheld was shown, and a withheld one to whoever has given a verdict about it.
    """
    if not _shows(session):
        return False
    # What was taken back before the answer came has shown nothing.
    stood: ColumnElement[bool] = Verdict.withdrawn_at.is_(None)
    if study.concluded_at is not None:
        stood = or_(stood, Verdict.withdrawn_at > study.concluded_at)
    own = select(Verdict.id).where(
        Verdict.study_id == study.id, Verdict.revision.between(1, study.revision), Verdict.user_id == user_id, stood
    )
    earlier = select(StudyPlacement.id).where(
        StudyPlacement.study_id == study.id,
        StudyPlacement.revision < judged_revision(study),
        StudyPlacement.withheld.is_(False),
    )
    return any(session.scalars(query.limit(1)).first() is not None for query in (own, earlier))


def _shows(session: Session) -> bool:
    stage = session.scalars(select(PolicyStep.stage).order_by(PolicyStep.id.desc()).limit(1)).first()
    return stage is None or stage.shows


def _is_told(session: Session, study: Study) -> bool:
    """Whether the list may tell that a verdict agrees: that would give a withheld answer away."""
    withheld = session.scalar(select(Study.withheld).where(Study.id == study.id))
    return study.state is StudyState.CONCLUDED and not withheld and _shows(session)


def is_known(session: Session, token: str) -> bool:
    """Whether a form was taken already."""
    return session.scalars(select(Verdict.id).where(Verdict.token == token)).first() is not None


def withdraw(session: Session, study: Study, user_id: int, *, now: datetime) -> bool:
    """Take back what a user last said of the present answer or the one to come, and a correction not made yet.

    Returns
    -------
    bool
        Whether there was anything to take back.
    """
    own = [given for given in present(session, study) if given.user_id == user_id]
    session.execute(
        update(Verdict)
        .where(
            Verdict.study_id == study.id,
            Verdict.revision == judged_revision(study),
            Verdict.user_id == user_id,
            Verdict.withdrawn_at.is_(None),
        )
        .values(withdrawn_at=now)
    )
    others = present(session, study)
    if others:
        agrees = others[-1].agrees if _is_told(session, study) else None
        readings.judged(session, study.id, agrees=agrees, now=others[-1].at)
    elif own:
        readings.unjudged(session, study.id)
    if any(given.corrects for given in own):
        _have_corrected(session, study, now=now)
    return bool(own)


def standing(session: Session, study_id: int, revision: int) -> list[Given]:
    """The last verdict of each user about an answer, oldest first; without withdrawn ones."""
    return _given(session, Verdict.id.in_(_latest(Verdict.study_id == study_id, Verdict.revision == revision)))


def contradicted(session: Session, study_ids: Sequence[int]) -> set[int]:
    """Those of some studies about whose present answer some readers say yes and others no."""
    rows = session.execute(
        select(Verdict.study_id)
        .join(Study, and_(Study.id == Verdict.study_id, Study.revision == Verdict.revision))
        .where(Verdict.id.in_(_latest(Verdict.study_id.in_(study_ids))), Study.state == StudyState.CONCLUDED)
        .group_by(Verdict.study_id)
        .having(func.count(Verdict.agrees.distinct()) > 1)
    )
    return set(rows.scalars())


def history(session: Session, study_id: int) -> list[Given]:
    """Everything that was ever said about a study, withdrawn or not, oldest first."""
    return _given(session, Verdict.study_id == study_id)


def correction(session: Session, study: Study) -> Correction | None:
    """The correction that the study's next conclusion must carry, or that its present one carries.

    The latest counts. "Significant finding" holds whatever films come later; "no significant finding" holds
    only for the films that its reader could see: with a film that came later the study is judged anew.
    """
    given = _given(session, and_(Verdict.id.in_(_latest(Verdict.study_id == study.id)), Verdict.corrects))
    if not given or (not given[-1].finding and study.last_received_at > given[-1].at):
        return None
    last = given[-1]
    decision = Decision.SIGNIFICANT_FINDING if last.finding else Decision.NO_SIGNIFICANT_FINDING
    return Correction(last.id, last.user_id, last.user, decision, last.revision, last.at)


def is_pending(session: Session, study: Study) -> bool:
    """Whether a correction of the present answer waits to be made."""
    found = correction(session, study)
    return found is not None and found.revision == study.revision


def is_called_off(session: Session, study: Study) -> bool:
    """Whether a conclusion has nothing to do: it was asked for by a correction that has been taken back."""
    if study.state is not StudyState.CONCLUDED or study.concluded_at is None or is_pending(session, study):
        return False
    asked = select(Verdict.id).where(Verdict.study_id == study.id, Verdict.revision == study.revision, Verdict.corrects)
    read_since = (
        select(Analysis.id)
        .join(Instance, Instance.id == Analysis.instance_id)
        .where(Instance.study_id == study.id, Analysis.created_at > study.concluded_at, Analysis.shadow.is_(False))
    )
    return session.scalars(asked).first() is not None and session.scalars(read_since).first() is None


def with_finding(*, blind: bool) -> Select[int]:
    """SQL: studies of which a reader said last that there is a significant finding.

    Parameters
    ----------
    blind : bool
        Only by readers who had not been shown the answer.
    """
    is_significant = Verdict.answer == Decision.SIGNIFICANT_FINDING
    finding = or_(and_(is_significant, Verdict.agrees), and_(~is_significant, ~Verdict.agrees))
    counted = Verdict.blind if blind else true()
    latest = select(func.max(Verdict.id)).where(Verdict.withdrawn_at.is_(None), counted)
    latest = latest.group_by(Verdict.study_id, Verdict.user_id)
    return select(Verdict.study_id).where(Verdict.id.in_(latest), finding)


def _latest(*where: ColumnElement[bool]) -> Select[int]:
    """Numbers of the last verdicts of each user about each answer, without withdrawn ones."""
    return (
        select(func.max(Verdict.id))
        .where(Verdict.withdrawn_at.is_(None), *where)
        .group_by(Verdict.study_id, Verdict.revision, Verdict.user_id)
    )


def _given(session: Session, where: ColumnElement[bool]) -> list[Given]:
    rows = session.execute(
        select(Verdict, User.name).join(User, User.id == Verdict.user_id).where(where).order_by(Verdict.id)
    )
    return [
        Given(
            id=verdict.id,
            user_id=verdict.user_id,
            user=name,
            revision=verdict.revision,
            answer=verdict.answer,
            agrees=verdict.agrees,
            blind=verdict.blind,
            corrects=verdict.corrects,
            comment=verdict.comment,
            at=verdict.at,
            withdrawn_at=verdict.withdrawn_at,
            finding=verdict.finding,
        )
        for verdict, name in rows
    ]


def _have_corrected(session: Session, study: Study, *, now: datetime) -> None:
    """Have a correction made after a while; one that was taken back is not made."""
    if is_pending(session, study):
        queue.request_conclusion(session, study.id, run_after=now + CORRECTION_DELAY, priority=study.priority, now=now)
    elif study.state is StudyState.CONCLUDED:
        session.execute(
            update(Job)
            .where(Job.study_id == study.id, Job.kind == JobKind.CONCLUDE, Job.state == JobState.QUEUED)
            .values(state=JobState.DONE, last_error="the correction was taken back", finished_at=now)
        )
