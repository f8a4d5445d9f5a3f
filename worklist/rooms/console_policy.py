"""The triage policy: its stage, who may change it, what reports say of it, and devices that are released."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import Response

from clearfilm.policy.rules import GUARDS
from clearfilm.policy.stages import Signature, Stage
from db import placements, policies
from db.policy_tables import Device
from worklist.access import ADMINS, allow
from worklist.answers import Problem
from worklist.page import Page, PageMaker, audited
from worklist.rooms.console import render
from worklist.rooms.gate_words import step_words
from worklist.templates import N_

room = APIRouter(prefix="/admin/policy")

STAGES = {
    Stage.OFF: (N_("off"), N_("Nothing is tagged, no result is sent.")),
    Stage.SHADOW: (N_("shadow"), N_("Studies are tagged silently: nobody sees it, no result is sent.")),
    Stage.SUPERVISED: (N_("supervised"), N_("Results and tags are shown, the order of the list stays.")),
    Stage.ACTIVE: (N_("active"), N_("Tagged studies are read later.")),
}
COUNTS = {
    "placed": N_("Concluded studies"),
    "tagged": N_("Tagged"),
    "shown": N_("Shown as such"),
    "later": N_("Read later now"),
    "blind": N_("In the blind share"),
}
Reason = Annotated[str, Form(max_length=500)]


@room.get("", dependencies=[audited("policy shown")])
@allow(*ADMINS)
def show(page: Page) -> Response:
    """Everything about the policy."""
    policy = page.services.config.policy
    with page.services.database.read() as session:
        now = page.services.database.now(session)
        standing = policies.in_force(session, policy).standing
        counts = placements.counts(session, standing.stage, now=now)
        found = policies.assessment(session, policy, now=now)
        devices = [(device, _words(page, device)) for device in policies.devices(session)]
        history = list(reversed(policies.history(session)))[:50]
    return render(
        page,
        "admin/policy.html",
        standing=standing,
        stages={stage: (page.say(name), page.say(words)) for stage, (name, words) in STAGES.items()},
        counts=[(page.say(label), counts[name]) for name, label in COUNTS.items()],
        found=found,
        policy=policy,
        guards=GUARDS,
        devices=devices,
        history=history,
        me=page.visit.actor,
        say=page.say,
        step_words=lambda text: step_words(page.say, text),
        withdrawn=lambda row: (row.detail.get("withdrawn") or {}).get("stage"),
    )


@room.post("/stage")
@allow(*ADMINS)
def step(page: Page, stage: Annotated[Stage, Form()], reason: Reason) -> Response:
    """Down at once, or sign the way up: two people, each in their own name."""
    _require(reason)
    with page.services.database.begin() as session:
        signature = Signature(page.visit.actor, reason.strip(), page.services.database.now(session), "worklist")
        policies.request_step(session, page.services.config.policy, stage, signature)
    return page.go("/admin/policy")


@room.post("/stage/withdraw")
@allow(*ADMINS)
def withdraw_step(page: Page, stage: Annotated[Stage, Form()], reason: Reason) -> Response:
    """Take back a step up that was signed once, by oneself or by somebody else."""
    _require(reason)
    with page.services.database.begin() as session:
        signature = Signature(page.visit.actor, reason.strip(), page.services.database.now(session), "worklist")
        policies.withdraw_step(session, page.services.config.policy, stage, signature)
    return page.go("/admin/policy")


@room.post("/release")
@allow(*ADMINS)
def release(page: Page, device: Annotated[int, Form(ge=1)], reason: Reason) -> Response:
    """Sign a device; with the second person's signature its studies may be tagged."""
    _require(reason)
    with page.services.database.begin() as session:
        signature = Signature(page.visit.actor, reason.strip(), page.services.database.now(session), "worklist")
        policies.release(session, device, signature)
    return page.go("/admin/policy")


@room.post("/withdraw")
@allow(*ADMINS)
def withdraw(page: Page, device: Annotated[int, Form(ge=1)], reason: Reason) -> Response:
    """Take a release back; one person suffices."""
    _require(reason)
    with page.services.database.begin() as session:
        signature = Signature(page.visit.actor, reason.strip(), page.services.database.now(session), "worklist")
        policies.withdraw_release(session, device, signature)
    return page.go("/admin/policy")


def _require(reason: str) -> None:
    if not reason.strip():
        raise Problem(422, N_("Say why: a signature needs a reason."))


def _words(page: PageMaker, device: Device) -> str:
    name = " ".join(part for part in (device.manufacturer, device.model, device.serial) if part)
    return page.say(N_("{device} at {sender}"), device=name or page.say(N_("unnamed device")), sender=device.sender)
