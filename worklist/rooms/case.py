"""The page of a case: film, answer, why it is where it is, and what readers say of it."""

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form
from fastapi.responses import Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clearfilm import metrics
from clearfilm.errors import StaleAnswer
from clearfilm.triage import Decision
from db import readings, verdicts
from db.models import Instance, Study
from worklist import cases
from worklist.access import RADIOLOGISTS, READERS, allow
from worklist.answers import Problem
from worklist.page import Page, PageMaker, audited
from worklist.templates import N_
from worklist.timeline import OPENED, timeline

room = APIRouter(prefix="/studies/{study_id}")

RevisionField = Annotated[int | None, Form(ge=0)]
SeenField = Annotated[int | None, Form(ge=0)]
TokenField = Annotated[str, Form(min_length=16, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
CommentField = Annotated[str, Form(max_length=2000)]


@room.get("", dependencies=[audited(OPENED)])
@allow(*READERS)
def show(page: Page, study_id: int) -> Response:
    """The page; that it was opened is kept."""
    assert page.visit.login is not None
    with page.services.database.begin() as session:
        values = _values(page, session, study_id)
        readings.opened(
            session,
            study_id,
            page.visit.login.user_id,
            reads=page.visit.role in RADIOLOGISTS,
            now=page.services.database.now(session),
        )
    return page.render("case.html", **values)


@room.get("/panel")
@allow(*READERS)
def panel(page: Page, study_id: int) -> Response:
    """The words beside the film, anew. The page that asks was recorded when it was shown."""
    with page.services.database.read() as session:
        values = _values(page, session, study_id)
    return page.render("case/panel.html", **values)


@room.post("/verdict")
@allow(*RADIOLOGISTS)
def judge(
    page: Page,
    study_id: int,
    token: TokenField,
    says: Annotated[Literal["agree", "disagree", "finding", "clear"], Form()],
    revision: RevisionField = None,
    seen: SeenField = None,
    comment: CommentField = "",
    corrects: Annotated[bool, Form()] = False,
) -> Response:
    """Agree or disagree with the answer `revision`, or, while none is shown, say what one sees in the films.

    A form without an answer names its newest film instead: a number of the answer would tell that there is one.
    """
    assert page.visit.login is not None
    database = page.services.database
    with database.begin() as session:
        now = database.now(session)
        study = _locked(session, study_id)
        if verdicts.is_known(session, token):
            return _answer(page, study_id)  # clicked twice
        found = cases.standing(page, session, study_id)
        if found.blind is (says in ("agree", "disagree")):
            raise Problem(409, N_("The answer has changed meanwhile; look at it again."))
        if found.is_own_answer and says == "agree":
            raise Problem(409, N_("This answer is your own correction; there is nothing to agree with."))
        if found.blind and seen != _newest_film(session, study_id):
            raise Problem(409, N_("A film has come meanwhile; look at the study again."))
        user_id = page.visit.login.user_id
        try:
            if found.blind:
                given = verdicts.see(session, study, user_id=user_id, finding=says == "finding", token=token, now=now)
            else:
                given = verdicts.give(
                    session,
                    study,
                    revision=-1 if revision is None else revision,
                    user_id=user_id,
                    agrees=says == "agree",
                    token=token,
                    comment=comment.strip(),
                    corrects=corrects,
                    now=now,
                )
        except StaleAnswer as error:
            words = _STALE.get(str(error), N_("The answer has changed meanwhile; look at it again."))
            raise Problem(409, words) from error
        page.record(session, "verdict given", study_id=study_id, verdict_id=given.id)
    early = given.revision > study.revision
    metrics.VERDICTS.labels("early" if early else "agree" if given.agrees else "disagree").inc()
    return _answer(page, study_id)


@room.post("/verdict/undo")
@allow(*RADIOLOGISTS)
def take_back(page: Page, study_id: int, revision: RevisionField = None) -> Response:
    """Take one's verdict back, and a corrected result that is not made yet."""
    assert page.visit.login is not None
    database = page.services.database
    with database.begin() as session:
        study = _locked(session, study_id)
        if cases.standing(page, session, study_id).answer_shown and study.revision != revision:
            raise Problem(409, N_("The answer has changed meanwhile; look at it again."))
        if verdicts.withdraw(session, study, page.visit.login.user_id, now=database.now(session)):
            page.record(session, "verdict taken back", study_id=study_id)
    return _answer(page, study_id)


_STALE = {
    "this study was not analysed: there is no answer to agree or disagree with": N_(
        "This study was not analysed: there is no answer to agree or disagree with."
    )
}


def _newest_film(session: Session, study_id: int) -> int | None:
    return session.scalar(select(func.max(Instance.id)).where(Instance.study_id == study_id))


def _locked(session: Session, study_id: int) -> Study:
    """The study, changed by nobody else until this transaction ends."""
    study = session.scalars(select(Study).where(Study.id == study_id).with_for_update()).one_or_none()
    if study is None:
        raise Problem(
            404, N_("There is no such study; perhaps it was deleted because it is older than the node keeps.")
        )
    return study


def _answer(page: PageMaker, study_id: int) -> Response:
    """The words anew for our script, the whole page without it."""
    if "hx-request" not in page.request.headers:
        return page.go(f"/studies/{study_id}")
    with page.services.database.read() as session:
        values = _values(page, session, study_id)
    return page.render("case/panel.html", **values)


def _values(page: PageMaker, session: Session, study_id: int) -> dict[str, Any]:
    case = cases.case(page, session, study_id)
    study = case.standing.study
    decision = study.decision if case.standing.answer_shown else None
    opposite = {
        Decision.SIGNIFICANT_FINDING: Decision.NO_SIGNIFICANT_FINDING,
        Decision.NO_SIGNIFICANT_FINDING: Decision.SIGNIFICANT_FINDING,
    }
    other = opposite.get(decision) if decision else None
    return {
        "case": case,
        "study": study,
        "standing": case.standing,
        "entries": timeline(page, session, case.standing),
        "token": secrets.token_urlsafe(24),
        "may_judge": page.visit.role in RADIOLOGISTS,
        "newest_film": max((film.id for film in case.films), default=None),
        "is_judged": decision is not None and decision is not Decision.NOT_ANALYSED,
        "other_answer": page.say(cases.DECISIONS[other]) if other else "",
        "destinations": [destination.name for destination in page.services.config.destinations],
        "delay_seconds": int(verdicts.CORRECTION_DELAY.total_seconds()),
        "has_viewer": page.services.config.worklist.viewer_url is not None,
    }
