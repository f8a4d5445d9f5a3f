"""The audit trail: search, verify the chain, export. Auditors see nothing else of the console."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import Select, select

from db import audit
from db.models import Audit
from db.session import Database
from worklist import csv_text, templates
from worklist.access import AUDITORS, allow
from worklist.answers import Problem
from worklist.page import Page, PageMaker, audited
from worklist.rooms.audit_words import event_of, event_words
from worklist.rooms.console import render
from worklist.templates import N_

room = APIRouter(prefix="/admin")

ROWS = 100
Word = Annotated[str, Query(max_length=128)]


@room.get("/audit", dependencies=[audited("audit trail shown")])
@allow(*AUDITORS)
def show(
    page: Page,
    event: Word = "",
    actor: Word = "",
    study: Annotated[str, Query(pattern=r"^\d{0,15}$")] = "",
    first: Annotated[str, Query(pattern=r"^(\d{4}-\d\d-\d\d)?$")] = "",
    last: Annotated[str, Query(pattern=r"^(\d{4}-\d\d-\d\d)?$")] = "",
    before: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """Newest records that fit."""
    found = _matching(page, event, actor, study, first, last).order_by(Audit.id.desc()).limit(ROWS + 1)
    if before is not None:
        found = found.where(Audit.id < before)
    with page.services.database.read() as session:
        entries = session.scalars(found).all()
        events = session.scalars(select(Audit.event).distinct().order_by(Audit.event)).all()
    return render(
        page,
        "admin/audit.html",
        entries=[(entry, _detail(entry)) for entry in entries[:ROWS]],
        events=sorted(event_words(page.say, one) for one in events),
        words=lambda one: event_words(page.say, one),
        filters={
            "event": event_of(page.services.templates, event),
            "actor": actor,
            "study": study,
            "first": first,
            "last": last,
        },
        before=entries[ROWS - 1].id if len(entries) > ROWS else None,
        verdict=None,
    )


@room.get("/audit/verify", dependencies=[audited("audit trail verified")])
@allow(*AUDITORS)
def verify(page: Page) -> Response:
    """Recompute the chain from its first record."""
    with page.services.database.read() as session:
        broken = audit.first_broken(session)
    return render(
        page,
        "admin/audit.html",
        entries=[],
        events=[],
        words=str,
        filters={"event": "", "actor": "", "study": "", "first": "", "last": ""},
        before=None,
        verdict={"broken": broken},
    )


@room.get("/audit/export", dependencies=[audited("audit trail exported")])
@allow(*AUDITORS)
def export(
    page: Page,
    event: Word = "",
    actor: Word = "",
    study: Annotated[str, Query(pattern=r"^\d{0,15}$")] = "",
    first: Annotated[str, Query(pattern=r"^(\d{4}-\d\d-\d\d)?$")] = "",
    last: Annotated[str, Query(pattern=r"^(\d{4}-\d\d-\d\d)?$")] = "",
) -> Response:
    """All records that fit, as CSV; times in UTC."""
    found = _matching(page, event, actor, study, first, last).order_by(Audit.id)
    return StreamingResponse(
        _csv(page.services.database, found),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="clearfilm-audit.csv"'},
    )


def _matching(page: PageMaker, event: str, actor: str, study: str, first: str, last: str) -> Select[Any]:
    found = select(Audit)
    if event:
        found = found.where(Audit.event == event_of(page.services.templates, event))
    if actor:
        found = found.where(Audit.actor.icontains(actor, autoescape=True))
    if study:
        found = found.where(Audit.study_id == int(study))
    where = templates.zone(page.visit.zone)
    try:
        if first:
            found = found.where(Audit.at >= datetime.combine(date.fromisoformat(first), time(), where))
        if last:
            found = found.where(
                Audit.at < datetime.combine(date.fromisoformat(last) + timedelta(days=1), time(), where)
            )
    except (ValueError, OverflowError):
        raise Problem(422, N_("There is no such day.")) from None
    return found


def _detail(entry: Audit) -> str:
    return "; ".join(f"{name}: {_plain(value)}" for name, value in entry.detail.items())


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _csv(database: Database, found: Select[Any]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["number", "at", "event", "actor", "study", "instance", "detail", "hash"])
    with database.read() as session:
        for entry in session.scalars(found.execution_options(yield_per=500)):
            detail = json.dumps(entry.detail, ensure_ascii=False, sort_keys=True)
            row = [
                entry.id,
                entry.at.astimezone(UTC).isoformat(),
                entry.event,
                entry.actor,
                entry.study_id,
                entry.instance_id,
                detail,
                entry.hash,
            ]
            writer.writerow([csv_text.cell(value) for value in row])
            if buffer.tell() > 65_536:
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
    yield buffer.getvalue()
