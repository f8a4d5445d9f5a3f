"""Why a study is where it is: what happened to it, in plain words, oldest first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clearfilm.counts import NN_
from clearfilm.policy.rules import Level, Placement, Reason
from clearfilm.triage import Decision
from db import placements, verdicts
from db.models import (
    Analysis,
    Audit,
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    Job,
    JobKind,
    Report,
    ReportStatus,
    Result,
)
from db.placements import Placed
from db.verdicts import Given
from worklist.cases import DECISIONS, Standing
from worklist.page import PageMaker
from worklist.reasons import reason_words
from worklist.templates import N_, shown

OPENED: Final = "case shown"
"""Audit event of the page."""
RULES: Final[Mapping[str, str]] = {
    "not-clear": N_("a film has a significant finding or was not analysed"),
    "ordered-urgent": N_("it was ordered urgent"),
    "ordered-unknown": N_("the priority of its order is not known to mean routine"),
    "guarded-location": N_("it comes from a place whose studies are never lowered"),
    "red-flag": N_("the request holds a warning word"),
    "under-age": N_("the patient is under 18"),
    "age-unknown": N_("the patient's age is not known"),
    "prior-report": N_("an earlier report of the patient is not without finding"),
    "new-device": N_("a device that took it is not released yet"),
    "clear": N_("every film is below the operating point and no rule speaks against reading it later"),
    "blind-share": N_("it is in the blind share"),
    "blind-over": N_("it was in the blind share for as long as it may"),
    "maximum-wait": N_("it has waited for as long as it may"),
    "stepped-down": N_("the policy went down a stage"),
    "disagreed": N_("a reader disagreed with the answer"),
    "stage-off": N_("the policy is off"),
    "stage-shadow": N_("the policy watches silently"),
    "stage-supervised": N_("flags are shown, the order of the list stays"),
    "stage-active": N_("flagged studies are read later"),
}
BACK: Final = NN_(
    "after {minutes} minute at the latest it is back at its usual place",
    "after {minutes} minutes at the latest it is back at its usual place",
    by="minutes",
)


@dataclass(frozen=True)
class Entry:
    """One thing that happened."""

    at: datetime
    words: str
    detail: str = ""  # as recorded: names, reasons, errors


def timeline(page: PageMaker, session: Session, found: Standing) -> list[Entry]:
    """What happened to the study, as far as this reader may know.

    That a withheld answer exists is not told: it would look like no other study that waits for one, and only clear
    studies are drawn into the blind share.
    """
    entries = [*_films(page, session, found), *_openings(page, session, found), *_reports(page, session, found)]
    if found.answer_shown:
        entries += [*_conclusions(page, session, found), *_places(page, session, found)]
        entries += [*_deliveries(page, session, found), *_verdicts(page, session, found)]
    return sorted(entries, key=lambda entry: entry.at)


def _films(page: PageMaker, session: Session, found: Standing) -> Iterator[Entry]:
    films = session.scalars(select(Instance).where(Instance.study_id == found.study.id).order_by(Instance.id)).all()
    for number, film in enumerate(films, 1):
        came = page.say(N_("Film {number} received and queued"), number=number)
        yield Entry(film.received_at, came, f"{film.sender} · {film.calling_ae_title}")
        of_film = select(Analysis.created_at).where(Analysis.instance_id == film.id, Analysis.shadow.is_(False))
        for at in session.scalars(of_film):
            yield Entry(at, page.say(N_("Film {number} analysed"), number=number))
        if film.state in (InstanceState.NOT_ANALYSED, InstanceState.FAILED):
            jobs = select(func.max(Job.finished_at)).where(Job.instance_id == film.id, Job.kind == JobKind.ANALYSE)
            at = session.scalar(jobs) or film.received_at
            words = page.say(N_("Film {number} not analysed"), number=number)
            yield Entry(at, words, reason_words(page.say, film.reason))


def _conclusions(page: PageMaker, session: Session, found: Standing) -> Iterator[Entry]:
    rows = session.execute(
        select(Result.revision, Result.decision, func.min(Result.created_at))
        .where(Result.study_id == found.study.id)
        .group_by(Result.revision, Result.decision)
        .order_by(Result.revision)
    )
    for revision, decision, at in rows:
        answer = page.say(DECISIONS[decision])
        words = page.say(N_("Answer {revision}: {answer}"), revision=revision, answer=answer)
        told = revision == found.study.revision and decision is Decision.NOT_ANALYSED
        yield Entry(at, words, reason_words(page.say, found.study.reason) if told else "")


def _places(page: PageMaker, session: Session, found: Standing) -> Iterator[Entry]:
    before: Placed | None = None
    for placed in placements.history(session, found.study.id):
        follows = before is not None and before.revision == placed.revision
        if before is not None and follows:
            words, reasons = _change(before.placement, placed.placement)
        else:
            words, reasons = _place(placed.placement), _deciding(placed.placement)
        yield Entry(
            placed.decided_at, page.say(words), "; ".join(_reason(page, placed.placement, one) for one in reasons)
        )
        before = placed


def _place(placement: Placement) -> str:
    if placement.level is Level.LATER:
        return N_("To be read later, until its longest wait is over")
    if placement.level is Level.PRIORITY:
        return N_("At the place of its priority")
    return N_("Flagged, at its usual place") if placement.shown else N_("At its usual place")


def _change(before: Placement, after: Placement) -> tuple[str, Sequence[Reason]]:
    """What moved a study that was concluded already: the reasons that are new."""
    new = [reason for reason in after.reasons if reason not in before.reasons]
    if before.level is Level.LATER and after.level is not Level.LATER:
        return N_("Back at its usual place"), new
    return (N_("Not flagged any more") if before.shown and not after.shown else _place(after)), new


def _deciding(placement: Placement) -> Sequence[Reason]:
    """A person's word, or the end of the longest wait, counts more than all that speaks for reading it later."""
    last = placement.reasons[-1:]
    is_over = any(reason.rule == "maximum-wait" for reason in last) and placement.level is not Level.LATER
    return last if is_over or any(reason.rule == "disagreed" for reason in last) else placement.reasons


def _reason(page: PageMaker, placement: Placement, reason: Reason) -> str:
    if reason.rule == "maximum-wait" and placement.level is Level.LATER:
        if not reason.subject:  # kept by a version that did not tell
            return page.say(N_("its longest wait counts"))
        return page.say(BACK, minutes=reason.subject)
    if reason.rule not in RULES:
        return reason.words
    words = page.say(RULES[reason.rule])
    return page.say(N_("{rule}: {subject}"), rule=words, subject=shown(reason.subject)) if reason.subject else words


def _deliveries(page: PageMaker, session: Session, found: Standing) -> Iterator[Entry]:
    rows = session.execute(
        select(
            Result.revision,
            Delivery.destination,
            func.max(Delivery.sent_at),
            func.max(Delivery.committed_at),
            func.count(),
        )
        .join(Result, Result.id == Delivery.result_id)
        .where(
            Result.study_id == found.study.id,
            Delivery.state.in_([DeliveryState.SENT, DeliveryState.COMMITTED]),
        )
        .group_by(Result.revision, Delivery.destination)
    )
    for revision, destination, sent_at, committed_at, objects in rows:
        if sent_at is not None:
            words = page.say(N_("Answer {revision} sent to {name}"), revision=revision, name=destination)
            yield Entry(sent_at, words, page.say(N_("objects: {count}"), count=objects))
        if committed_at is not None:
            yield Entry(committed_at, page.say(N_("{name} took responsibility for it"), name=destination))


def _openings(page: PageMaker, session: Session, found: Standing) -> Iterator[Entry]:
    rows = session.execute(
        select(Audit.actor, func.min(Audit.at), func.count())
        .where(Audit.study_id == found.study.id, Audit.event == OPENED)
        .group_by(Audit.actor)
    )
    for actor, at, times in rows:
        detail = page.say(N_("{times} times since"), times=times) if times > 1 else ""
        yield Entry(at, page.say(N_("Opened by {name}"), name=actor), detail)


def _reports(page: PageMaker, session: Session, found: Standing) -> Iterator[Entry]:
    rows = session.execute(select(Report.received_at, Report.status).where(Report.study_id == found.study.id))
    for at, status in rows:
        final = status is not ReportStatus.PRELIMINARY
        yield Entry(at, page.say(N_("Report received")) if final else page.say(N_("Preliminary report received")))


def _verdicts(page: PageMaker, session: Session, found: Standing) -> Iterator[Entry]:
    for given in verdicts.history(session, found.study.id):
        yield Entry(given.at, _verdict(page, given), given.comment)
        if given.withdrawn_at is not None:
            # A verdict about no answer: a film came after it.
            words = N_("{name} took the verdict back") if given.revision else N_("The verdict of {name} is void")
            why = "" if given.revision else page.say(N_("a film came after it"))
            yield Entry(given.withdrawn_at, page.say(words, name=given.user), why)


def _verdict(page: PageMaker, given: Given) -> str:
    if given.blind:
        words = N_("{name} saw a significant finding") if given.finding else N_("{name} saw no significant finding")
        return page.say(words, name=given.user)
    if given.corrects:
        return page.say(
            N_("{name} disagreed with answer {revision} and corrected it"), name=given.user, revision=given.revision
        )
    words = (
        N_("{name} agreed with answer {revision}") if given.agrees else N_("{name} disagreed with answer {revision}")
    )
    return page.say(words, name=given.user, revision=given.revision)
