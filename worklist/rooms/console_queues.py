"""Queues: work that waits, runs, is sent, has failed or is done; and the switches that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from clearfilm.counts import NN_, Counted
from db import deliveries, operations, switches
from db.models import Job, JobKind, JobState, Study
from db.switches import Stage
from worklist import causes
from worklist.access import ADMINS, allow
from worklist.answers import Problem
from worklist.page import Page, PageMaker, audited
from worklist.rooms.alert_words import STAGES
from worklist.rooms.console import duration, render
from worklist.templates import N_

room = APIRouter(prefix="/admin")

ROWS = 50
# One transaction each: the node goes on writing in between.
BATCH = 100
MOST = 20_000
TABS = {
    "waiting": N_("Waiting"),
    "running": N_("Running"),
    "sending": N_("Sending"),
    "failed": N_("Failed"),
    "done": N_("Done"),
}
KINDS = {
    JobKind.ANALYSE: N_("Analysis of a film"),
    JobKind.CONCLUDE: N_("Conclusion of a study"),
    JobKind.DELIVER: N_("Delivery"),
}
FAILED = {
    "film": N_("film"),
    "study": N_("study"),
    "delivery": N_("delivery"),
}
PRIORITIES = {2: N_("STAT"), 1: N_("high"), 0: N_("routine")}
DONE: dict[str, str | Counted] = {
    "retry": N_("{n} tried again."),
    "cancel": N_("{n} cancelled. You can take that back for {seconds} seconds."),
    "undo": NN_("{n} cancellation taken back.", "{n} cancellations taken back."),
    "stat": NN_("{n} study has the priority STAT now.", "{n} studies have the priority STAT now."),
    "high": NN_("{n} study has the priority high now.", "{n} studies have the priority high now."),
    "routine": NN_("{n} study has the priority routine now.", "{n} studies have the priority routine now."),
    "resend": NN_("{n} delivery is sent again.", "{n} deliveries are sent again."),
    "pause": N_("Paused. What was begun is finished first."),
    "resume": N_("Resumed."),
    "none": N_("Nothing was changed: somebody else was faster, or nothing was chosen."),
}
TabName = Annotated[str, Query(pattern="^(waiting|running|sending|failed|done)$")]
TabField = Annotated[str, Form(pattern="^(waiting|running|sending|failed|done)$")]
Keys = Annotated[list[str], Form(max_length=1000)]
Word = Annotated[str, Form(max_length=64)]
Row = TypeVar("Row", int, str)


@room.get("/queues", dependencies=[audited("queues shown")])
@allow(*ADMINS)
def show(
    page: Page,
    tab: TabName = "waiting",
    number: Annotated[int, Query(alias="page", ge=1, le=10_000)] = 1,
    did: Annotated[str, Query(pattern="^[a-z]{1,8}$")] = "",
    n: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Response:
    """One tab."""
    words = page.say(DONE[did], n=n, seconds=round(operations.UNDO.total_seconds())) if did in DONE else None
    return render(page, "admin/queues.html", words=words, **_facts(page, tab, number))


@room.get("/queues/part")
@allow(*ADMINS)
def part(
    page: Page, tab: TabName = "waiting", number: Annotated[int, Query(alias="page", ge=1, le=10_000)] = 1
) -> Response:
    """The same without the frame; pages ask for it by themselves. Rows name studies by number only."""
    return page.render("admin/queues_part.html", **_facts(page, tab, number))


def _facts(page: PageMaker, tab: str, number: int) -> dict[str, Any]:
    offset = (number - 1) * ROWS
    with page.services.database.read() as session:
        now = page.services.database.now(session)
        facts: dict[str, Any] = {"lines": [], "groups": [], "more": False}
        if tab == "failed":
            groups = causes.grouped(operations.reasons(session))
            facts["groups"] = [(group, _members(session, group)) for group in groups[:ROWS]]
        else:
            found = operations.lines(session, tab, offset=offset, limit=ROWS + 1)
            facts |= {"lines": found[:ROWS], "more": len(found) > ROWS}
        pauses = switches.paused(session)
        return facts | {
            "tab": tab,
            "tabs": {name: page.say(label) for name, label in TABS.items()},
            "number": number,
            "sizes": operations.sizes(session),
            "switches": [(stage, page.say(label), pauses.get(stage)) for stage, label in STAGES.items()],
            "cancelled": operations.cancelled(session, now=now),
            "kinds": {kind: page.say(label) for kind, label in KINDS.items()},
            "failed_kinds": {kind: page.say(label) for kind, label in FAILED.items()},
            "priorities": {value: page.say(label) for value, label in PRIORITIES.items()},
            "say": page.say,
            "age": lambda moment: duration(page, now - moment),
            "now": now,
        }


def _members(session: Session, group: causes.Group) -> list[operations.Failure]:
    """Some failures of a group, to look at."""
    found: list[operations.Failure] = []
    for reason in group.reasons[:10]:
        rows = operations.failures(session, reason=reason, limit=10)
        found += [row for row in rows if (row.kind, row.destination) == (group.kind, group.destination)]
    return found[:10]


@room.post("/queues/act")
@allow(*ADMINS)
def act(
    page: Page,
    tab: TabField,
    action: Annotated[str, Form(pattern="^(retry|cancel|stat|high|routine|resend)$")],
    chosen: Keys = [],  # noqa: B006 - FastAPI copies it
    everything: Word = "",
    cause: Word = "",
    kind: Word = "",
    destination: Word = "",
) -> Response:
    """Do something to the chosen rows, to all of a tab, or to all failures of one cause."""
    if (action == "retry") != (tab == "failed"):
        raise Problem(422, N_("This is not possible here."))
    if action == "retry":
        keys = _of_cause(page, cause, kind, destination) if cause else _all_failed(page) if everything else chosen
        return _after(page, tab, action, _in_batches(page, keys, _retry))
    with page.services.database.read() as session:
        numbers = operations.numbers(session, tab)[:MOST] if everything else [_row(text) for text in chosen]
    actions: dict[str, Callable[[PageMaker, Session, Sequence[int]], int]] = {
        "cancel": _cancel,
        "stat": lambda p, s, rows: _prioritise(p, s, rows, 2),
        "high": lambda p, s, rows: _prioritise(p, s, rows, 1),
        "routine": lambda p, s, rows: _prioritise(p, s, rows, 0),
        "resend": _resend,
    }
    return _after(page, tab, action, _in_batches(page, numbers, actions[action]))


@room.post("/queues/undo")
@allow(*ADMINS)
def undo(page: Page, tab: TabField, chosen: Keys) -> Response:
    """Take cancellations back."""
    return _after(page, tab, "undo", _in_batches(page, [_row(text) for text in chosen], _undo))


@room.post("/switches")
@allow(*ADMINS)
def switch(
    page: Page,
    stage: Annotated[Stage, Form()],
    paused: Annotated[bool, Form()],
    tab: TabField = "waiting",
    reason: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Pause or resume a stage; takes effect in the running processes within seconds."""
    if paused and not reason.strip():
        raise Problem(422, N_("Say why: others will ask."))
    with page.services.database.begin() as session:
        now = page.services.database.now(session)
        if paused:
            changed = switches.pause(session, stage, reason=reason, actor=page.visit.actor, now=now)
        else:
            changed = switches.resume(session, stage, actor=page.visit.actor, now=now)
    return _after(page, tab, "pause" if paused else "resume", int(changed))


def _after(page: PageMaker, tab: str, action: str, count: int) -> Response:
    return page.go("/admin/queues?" + urlencode({"tab": tab, "did": action if count else "none", "n": count}))


def _row(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:
        raise Problem(422, N_("There is no such row."))
    return int(text)


def _in_batches(page: PageMaker, rows: Sequence[Row], do: Callable[[PageMaker, Session, Sequence[Row]], int]) -> int:
    count = 0
    for start in range(0, len(rows), BATCH):
        with page.services.database.begin() as session:
            count += do(page, session, rows[start : start + BATCH])
    return count


def _retry(page: PageMaker, session: Session, keys: Sequence[str]) -> int:
    now = page.services.database.now(session)
    try:
        return sum(operations.retry(session, key, actor=page.visit.actor, now=now) for key in keys)
    except ValueError:
        raise Problem(422, N_("There is no such row.")) from None


def _cancel(page: PageMaker, session: Session, numbers: Sequence[int]) -> int:
    return operations.cancel(session, numbers, actor=page.visit.actor, now=page.services.database.now(session))


def _undo(page: PageMaker, session: Session, numbers: Sequence[int]) -> int:
    return operations.undo_cancel(session, numbers, actor=page.visit.actor, now=page.services.database.now(session))


def _prioritise(page: PageMaker, session: Session, numbers: Sequence[int], priority: int) -> int:
    now = page.services.database.now(session)
    return operations.set_priority(session, numbers, priority, actor=page.visit.actor, now=now)


def _resend(page: PageMaker, session: Session, numbers: Sequence[int]) -> int:
    """The same bytes again, without new inference; what waits for sending already is left alone."""
    now = page.services.database.now(session)
    known = {entry.name for entry in page.services.config.destinations}
    rows = session.execute(
        select(Job.study_id, Job.destination).where(Job.id.in_(numbers), Job.kind == JobKind.DELIVER).distinct()
    ).all()
    count = 0
    for study_id, destination in rows:
        waiting = select(Job.id).where(
            Job.study_id == study_id,
            Job.kind == JobKind.DELIVER,
            Job.destination == destination,
            Job.state.in_([JobState.QUEUED, JobState.RUNNING]),
        )
        if destination not in known or session.scalars(waiting).first() is not None:
            continue
        study = session.get_one(Study, study_id)
        count += deliveries.resend(session, study, [destination], actor=page.visit.actor, now=now) > 0
    return count


def _all_failed(page: PageMaker) -> list[str]:
    with page.services.database.read() as session:
        return [failure.key for failure in operations.failures(session, limit=MOST)]


def _of_cause(page: PageMaker, cause: str, kind: str, destination: str) -> list[str]:
    def keys(session: Session) -> Iterator[str]:
        for failure in operations.failures(session, limit=MOST):
            if (failure.kind, failure.destination) == (kind, destination) and causes.explain(
                failure.reason
            ).key == cause:
                yield failure.key

    with page.services.database.read() as session:
        return list(keys(session))
