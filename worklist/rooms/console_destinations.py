"""Destinations: do they answer, and would they take our results? Asked from here, with this node's title."""

from __future__ import annotations

import threading
from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import Response

from clearfilm.config import Destination
from clearfilm.errors import DeliveryError
from db import deliveries, overview, peer_checks
from db.peer_checks import PeerCheck
from worklist.access import ADMINS, allow
from worklist.answers import Problem
from worklist.page import Page, PageMaker, audited
from worklist.rooms.console import render
from worklist.templates import N_

room = APIRouter(prefix="/admin")

ECHO, REHEARSAL = "echo", "rehearsal"
SHOWN = 5
# A try holds a thread for up to half a minute: not all of the pages' threads may wait for dead peers.
_TRIES = threading.BoundedSemaphore(4)


@room.get("/destinations", dependencies=[audited("destinations shown")])
@allow(*ADMINS)
def show(page: Page) -> Response:
    """Every destination with what is known of it."""
    config = page.services.config
    with page.services.database.read() as session:
        counts = overview.counts(session, now=page.services.database.now(session))["deliveries"]
        found = [
            (entry, counts.get(entry.name, {}), peer_checks.newest(session, entry.name, SHOWN))
            for entry in config.destinations
        ]
    return render(page, "admin/destinations.html", destinations=found, title=config.node.ae_title)


@room.post("/destinations/try")
@allow(*ADMINS)
def attempt(
    page: Page,
    destination: Annotated[str, Form(max_length=64)],
    kind: Annotated[str, Form(pattern=f"^({ECHO}|{REHEARSAL})$")],
) -> Response:
    """Call a destination now; the answer is kept."""
    found = next((entry for entry in page.services.config.destinations if entry.name == destination), None)
    if found is None:
        raise Problem(404, N_("There is no such destination."))
    if not _TRIES.acquire(blocking=False):
        raise Problem(503, N_("Others are being tried at this moment. Try again in a few seconds."))
    try:
        check = _try(page, found, kind)
    finally:
        _TRIES.release()
    with page.services.database.begin() as session:
        check.at = page.services.database.now(session)
        peer_checks.keep(session, check)
        if check.good:
            # What waits after an outage goes out now, not at the end of the pause between tries.
            deliveries.wake(session, found.name, now=check.at)
    return page.go("/admin/destinations")


def _try(page: PageMaker, destination: Destination, kind: str) -> PeerCheck:
    # Imported here: pynetdicom is needed by few pages.
    from clearfilm.dicom import rehearsal

    title = page.services.config.node.ae_title
    check = PeerCheck(
        destination=destination.name, kind=kind, good=False, message="", detail={}, actor=page.visit.actor
    )
    try:
        if kind == ECHO:
            check.detail = {"seconds": rehearsal.echo(title, destination)}
            check.good = True
        else:
            found = rehearsal.rehearse(title, destination)
            check.detail = found.as_json() | {"capture": found.capture, "report": found.report}
            check.good = found.capture and found.report is not None
    except DeliveryError as error:
        check.message = str(error)
    return check
