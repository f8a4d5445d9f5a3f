"""Alerts: what is wrong, since when, who knows, and where it was sent."""

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import Response

from db import alerts
from worklist.access import ADMINS, allow
from worklist.page import Page, audited
from worklist.rooms.alert_words import advice, sentence
from worklist.rooms.console import duration, render

room = APIRouter(prefix="/admin")

ROWS = 100


@room.get("/alerts", dependencies=[audited("alerts shown")])
@allow(*ADMINS)
def show(page: Page) -> Response:
    """Open alerts, then those whose cause has gone."""
    with page.services.database.read() as session:
        now = page.services.database.now(session)
        found = [
            (
                alert,
                sentence(page, alert),
                advice(page, alert),
                duration(page, (alert.closed_at or now) - alert.opened_at),
            )
            for alert in alerts.newest(session, ROWS)
        ]
    section = page.services.config.alerts
    return render(page, "admin/alerts.html", alerts=found, settings=section)


@room.post("/alerts/acknowledge")
@allow(*ADMINS)
def acknowledge(page: Page, alert: Annotated[int, Form(ge=1)]) -> Response:
    """Somebody has seen it. The alert stays until its cause has gone."""
    with page.services.database.begin() as session:
        alerts.acknowledge(session, alert, actor=page.visit.actor, now=page.services.database.now(session))
    return page.go("/admin/alerts")
