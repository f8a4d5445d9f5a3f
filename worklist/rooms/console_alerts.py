"""Alerts: what is wrong, since when, who knows, and where it was sent."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import Response

from db import alerts
from db.alerts import Alert
from worklist.access import ADMINS, allow
from worklist.page import Page, PageMaker, audited
from worklist.rooms.alert_words import advice, sentence
from worklist.rooms.console import duration, render

room = APIRouter(prefix="/admin")

ROWS = 100
# For so long an alert that came and went is still news, unless somebody has seen it.
MISSED = timedelta(hours=24)


@room.get("/alerts", dependencies=[audited("alerts shown")])
@allow(*ADMINS)
def show(page: Page) -> Response:
    """What is wrong now, what was while nobody looked, and what is over."""
    return render(page, "admin/alerts.html", settings=page.services.config.alerts, **_facts(page))


@room.get("/alerts/part")
@allow(*ADMINS)
def part(page: Page) -> Response:
    """The list alone; pages ask for it by themselves. Holds nothing about patients."""
    return page.render("admin/alerts_part.html", **_facts(page))


def _facts(page: PageMaker) -> dict[str, Any]:
    with page.services.database.read() as session:
        now = page.services.database.now(session)
        found = [_line(page, alert, now) for alert in alerts.newest(session, ROWS)]
    past = [line for line in found if line[0].closed_at]
    missed = [line for line in past if not line[0].acknowledged_at and now - line[0].closed_at < MISSED]
    current = [line for line in found if not line[0].closed_at]
    return {"current": current + missed, "past": past, "any_open": bool(current)}


def _line(page: PageMaker, alert: Alert, now: datetime) -> tuple[Any, ...]:
    length = duration(page, (alert.closed_at or now) - alert.opened_at)
    return alert, sentence(page, alert), advice(page, alert), length


@room.post("/alerts/acknowledge")
@allow(*ADMINS)
def acknowledge(page: Page, alert: Annotated[int, Form(ge=1)]) -> Response:
    """Somebody has seen it. The alert stays until its cause has gone."""
    with page.services.database.begin() as session:
        alerts.acknowledge(session, alert, actor=page.visit.actor, now=page.services.database.now(session))
    return page.go("/admin/alerts")
