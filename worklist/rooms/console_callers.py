"""Callers: associations with their outcome, refused ones with the reason, and whom to trust."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query
from fastapi.responses import Response

from clearfilm.config import check_ae_title
from db import associations
from db.associations import AssociationEntry, Outcome
from worklist.access import ADMINS, allow
from worklist.answers import Problem
from worklist.page import Page, PageMaker, audited
from worklist.rooms.console import render
from worklist.templates import N_

room = APIRouter(prefix="/admin")

ROWS = 100
OUTCOMES = {
    Outcome.ACCEPTED: N_("accepted"),
    Outcome.DENIED: N_("denied"),
    Outcome.DEFERRED: N_("sent away for now"),
}
# Sentences that the listener writes down, see `storescp.policy.Policy.explain`; others are shown as they are.
REASONS = {
    "its title is listed with another address": N_(
        "Its title is listed with another address: it has moved, or somebody pretends to be it."
    ),
    "its address is listed with another title": N_(
        "Its address is listed with another title: its title was changed, or there is another program."
    ),
    "neither its title nor its address is listed": N_("Neither its title nor its address is listed."),
    "receiving is paused": N_("Receiving is paused."),
    "the disk is nearly full": N_("The disk is nearly full."),
}
CALLED_ANOTHER = "it calls "
Text = Annotated[str, Form(max_length=64)]


@room.get("/callers", dependencies=[audited("callers shown")])
@allow(*ADMINS)
def show(page: Page, outcome: Outcome | None = None, before: Annotated[int | None, Query(ge=1)] = None) -> Response:
    """The log of associations and the senders."""
    return render(page, "admin/callers.html", **_facts(page, outcome, before))


@room.get("/callers/part")
@allow(*ADMINS)
def part(page: Page, outcome: Outcome | None = None) -> Response:
    """The log alone; pages ask for it by themselves."""
    return page.render("admin/callers_part.html", **_facts(page, outcome, None))


def _facts(page: PageMaker, outcome: Outcome | None, before: int | None) -> dict[str, Any]:
    config = page.services.config
    with page.services.database.read() as session:
        now = page.services.database.now(session)
        trusted = associations.trusted(session)
        found = associations.newest(session, outcome, before=before, limit=ROWS + 1)
        denied = associations.count_denied(session, now - timedelta(hours=24))
    known = {(sender.ae_title, sender.address) for sender in trusted}
    return {
        "configured": config.senders,
        "trusted": trusted,
        "entries": [(entry, _words(page, entry), _may_trust(entry, known)) for entry in found[:ROWS]],
        "before": found[ROWS - 1].id if len(found) > ROWS else None,
        "outcome": outcome,
        "outcomes": {each: page.say(label) for each, label in OUTCOMES.items()},
        "denied": denied,
        "title": config.node.ae_title,
    }


def _words(page: PageMaker, entry: AssociationEntry) -> str:
    if entry.reason.startswith(CALLED_ANOTHER):
        return page.say(
            N_("It calls {called}; this node is {title}."),
            called=entry.called_ae_title,
            title=page.services.config.node.ae_title,
        )
    return page.say(REASONS[entry.reason]) if entry.reason in REASONS else entry.reason


def _may_trust(entry: AssociationEntry, known: set[tuple[str, str]]) -> bool:
    """Only what a list of senders would mend, and what is fit to be listed."""
    if entry.outcome is not Outcome.DENIED or entry.reason.startswith(CALLED_ANOTHER):
        return False
    return (entry.calling_ae_title, entry.address) not in known and _is_sender(entry.calling_ae_title, entry.address)


def _is_sender(ae_title: str, address: str) -> bool:
    try:
        check_ae_title(ae_title)
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return ae_title != "*"


@room.get("/callers/trust", dependencies=[audited("caller looked at")])
@allow(*ADMINS)
def ask(page: Page, entry: Annotated[int, Query(ge=1)]) -> Response:
    """First step: what it would mean to trust this caller."""
    with page.services.database.read() as session:
        found = session.get(AssociationEntry, entry)
    if found is None or not _may_trust(found, set()):
        raise Problem(404, N_("There is no such caller in the log any more."))
    return render(page, "admin/trust.html", entry=found, words=_words(page, found))


@room.post("/callers/trust")
@allow(*ADMINS)
def trust(page: Page, name: Text, ae_title: Text, address: Text, confirmed: Text = "") -> Response:
    """Second step: listeners let it in within seconds."""
    if not name.strip() or not name.isprintable():
        raise Problem(422, N_("The sender needs a name for lists and logs."))
    if not _is_sender(ae_title, address):
        raise Problem(422, N_("Title or address are not fit for a sender."))
    if confirmed != "yes":
        raise Problem(422, N_("Confirm that you know this device."))
    taken = [entry.name for entry in page.services.config.senders]
    with page.services.database.begin() as session:
        now = page.services.database.now(session)
        associations.trust(
            session,
            name=name.strip(),
            ae_title=check_ae_title(ae_title),
            address=str(ipaddress.ip_address(address)),
            taken=taken,
            actor=page.visit.actor,
            now=now,
        )
    return page.go("/admin/callers")


@room.post("/callers/revoke")
@allow(*ADMINS)
def revoke(page: Page, sender: Annotated[int, Form(ge=1)]) -> Response:
    """Trust a sender no more; what it sent stays."""
    with page.services.database.begin() as session:
        associations.revoke(session, sender, actor=page.visit.actor, now=page.services.database.now(session))
    return page.go("/admin/callers")
