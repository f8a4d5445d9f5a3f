"""Models: bundles with figures and gates, two signatures, the way back, and where the operating point could be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import FileResponse, Response
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from clearfilm.errors import BundleError
from clearfilm.operating import CalibrationScores, Choice, choices
from db import lineage, model_weeks, promotion, registry, training_runs
from db.governance import RunOutcome, Signature
from db.models import ModelBundle, ModelState
from worklist.access import ADMINS, allow
from worklist.answers import Problem
from worklist.page import Page, PageMaker, audited
from worklist.rooms.console import render
from worklist.rooms.gate_words import figure_words
from worklist.templates import N_

room = APIRouter(prefix="/admin/models")

WEEKS = timedelta(weeks=12)
STUDIES = 1000
EVALUATIONS = "evaluations"
MODELS = "models"
STATES = {
    ModelState.ACTIVE: N_("active"),
    ModelState.SHADOW: N_("reads silently"),
    ModelState.CANDIDATE: N_("candidate"),
    ModelState.RETIRED: N_("retired"),
}
OUTCOMES = {
    RunOutcome.RUNNING: N_("runs"),
    RunOutcome.FINISHED: N_("finished"),
    RunOutcome.FAILED: N_("failed"),
    RunOutcome.DIED: N_("died"),
}
Digest = Annotated[str, Form(pattern="^[0-9a-f]{64}$")]
Reason = Annotated[str, Form(max_length=500)]
Step = Annotated[int, Form(ge=0, le=1000)]
Confidence = Annotated[float, Form(ge=0.5, le=0.999)]
_WAIVER = "waive-"
# The page comes from outside: it may show pictures and styles of its own, and nothing else.
_REPORT_HEADERS = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
}


@room.get("", dependencies=[audited("models shown")])
@allow(*ADMINS)
def show(page: Page) -> Response:
    """All bundles, and how the silent ones compare with the active one."""
    with page.services.database.read() as session:
        since = page.services.database.now(session) - WEEKS
        rows = registry.known(session)
        present = registry.active(session)
        shadows = registry.shadows(session)
        compared = [(row, model_weeks.weeks(session, row, since)) for row in [present, *shadows] if row is not None]
        outcomes = {outcome.value: page.say(label) for outcome, label in OUTCOMES.items()}
        runs = [lineage.run_facts(run) for run in training_runs.known(session)[:20]]
    return render(
        page,
        "admin/models.html",
        models=rows,
        compared=compared,
        runs=runs,
        states=_states(page),
        outcomes=outcomes,
        auc=_auc,
    )


@room.get("/{number}", dependencies=[audited("model shown")])
@allow(*ADMINS)
def detail(page: Page, number: int, confidence: Annotated[float, Query(ge=0.5, le=0.999)] = 0.95) -> Response:
    """One bundle: figures, gates as they are now, signatures, operating point."""
    row = _find(page, number)
    # Its files are read before the database is asked: that takes a while.
    fault, metrics, places, own_share = _of_files(row, confidence)
    config = page.services.config
    with page.services.database.read() as session:
        now = page.services.database.now(session)
        row = session.get_one(ModelBundle, number)
        trouble = None
        try:
            ballot = promotion.ballot(session, row, fault=fault, limits=config.promotion, now=now)
        except BundleError as error:
            ballot, trouble = None, str(error)
        signatures = session.scalars(select(Signature).where(Signature.model_id == row.id).order_by(Signature.id)).all()
        waiting = bool(promotion.waiting_signatures(session, row))
        statistics = promotion.shadow_statistics(session, row, now=now)
        activations = registry.activations(session, row)
        decided = registry.count_decided_by(session, row)
        site = model_weeks.share_with_finding(session)
        run = training_runs.of_bundle(session, row.digest)
        run_facts = lineage.run_facts(run) if run else None
    share, reports = site or (own_share, 0)
    return render(
        page,
        "admin/model.html",
        model=row,
        fault=fault,
        metrics=metrics,
        ballot=ballot,
        trouble=trouble,
        signatures=signatures,
        waiting=waiting,
        statistics=statistics,
        activations=activations,
        decided=decided,
        run=run_facts,
        states=_states(page),
        needed=promotion.NEEDED_SIGNATURES,
        page_exists=_page_of(page, row) is not None,
        places=places,
        present=_present(places, row),
        share=share,
        reports=reports,
        studies=STUDIES,
        confidence=confidence,
        me=page.visit.actor,
        say=page.say,
        figure=lambda text: figure_words(page.say, text),
    )


@room.post("/{number}/shadow")
@allow(*ADMINS)
def shadow(page: Page, number: int, on: Annotated[bool, Form()]) -> Response:
    """Begin or end silent reading."""
    with page.services.database.begin() as session:
        now = page.services.database.now(session)
        row = session.get(ModelBundle, number, with_for_update=True)
        if row is None:
            raise Problem(404, N_("There is no such model."))
        if on and row.state is not ModelState.SHADOW:
            registry.begin_shadow(session, row, actor=page.visit.actor, now=now)
        elif not on:
            registry.end_shadow(session, row, actor=page.visit.actor, now=now)
    return page.go(f"/admin/models/{number}")


@room.post("/{number}/sign")
@allow(*ADMINS)
async def sign(request: Request, page: Page, number: int, reason: Reason) -> Response:
    """Sign for a promotion, in one's own name only; the second person's signature makes the model active."""
    form = await request.form()
    waivers = {
        name.removeprefix(_WAIVER): str(value)[:500]
        for name, value in form.items()
        if name.startswith(_WAIVER) and str(value).strip()
    }
    return await run_in_threadpool(_sign, page, number, reason, waivers)


def _sign(page: PageMaker, number: int, reason: str, waivers: Mapping[str, str]) -> Response:
    if not reason.strip():
        raise Problem(422, N_("Say why: a signature needs a reason."))
    row = _find(page, number)
    fault = _fault(row)
    with page.services.database.begin() as session:
        row = session.get_one(ModelBundle, number)
        ballot, _ = promotion.sign(
            session,
            row,
            fault=fault,
            limits=page.services.config.promotion,
            user=page.visit.actor,
            reason=reason,
            waivers=waivers,
            system_user="worklist",
            now=page.services.database.now(session),
        )
    if ballot.blocking:
        raise Problem(
            409,
            N_("Not signed. These gates stand in the way: {gates}."),
            gates=page.say(N_(", ")).join(page.say(gate.title) for gate in ballot.blocking),
        )
    return page.go(f"/admin/models/{number}")


@room.post("/{number}/withdraw")
@allow(*ADMINS)
def withdraw(page: Page, number: int, reason: Reason) -> Response:
    """Take the signatures for a promotion back, one's own or another person's."""
    if not reason.strip():
        raise Problem(422, N_("Say why: a signature needs a reason."))
    _find(page, number)
    with page.services.database.begin() as session:
        row = session.get_one(ModelBundle, number)
        now = page.services.database.now(session)
        promotion.withdraw(session, row, user=page.visit.actor, reason=reason, system_user="worklist", now=now)
    return page.go(f"/admin/models/{number}")


@room.post("/{number}/rollback")
@allow(*ADMINS)
def roll_back(page: Page, number: int, reason: Reason) -> Response:
    """Make an earlier model the active one again; one person suffices."""
    if not reason.strip():
        raise Problem(422, N_("Say why: a signature needs a reason."))
    row = _find(page, number)
    fault = _fault(row)
    if fault:
        raise Problem(409, N_("Its files are not as they were registered: {fault}"), fault=fault)
    with page.services.database.begin() as session:
        now = page.services.database.now(session)
        promotion.roll_back(session, row.digest, user=page.visit.actor, reason=reason, system_user="worklist", now=now)
    return page.go(f"/admin/models/{number}")


@room.post("/{number}/operating-point")
@allow(*ADMINS)
def move_point(page: Page, number: int, step: Step, confidence: Confidence) -> Response:
    """A copy of the bundle with another operating point: a candidate that goes through the gates like any other."""
    from clearfilm.vision import bundle
    from clearfilm.vision.bundle import OperatingPoint

    row = _find(page, number)
    _, _, places, _ = _of_files(row, confidence)
    # Places with the same threshold are one: the slider may stand between two.
    choice = max((place for place in places if place.misses <= step), key=lambda place: place.misses, default=None)
    if choice is None:
        raise Problem(422, N_("There is no such place for the operating point."))
    source = Path(row.path)
    description = bundle.read_description(source)
    point = OperatingPoint(
        threshold=choice.threshold,
        sensitivity=choice.sensitivity,
        confidence=confidence,
        abnormal_patients=choice.patients,
        misses=choice.misses,
    )
    if point == description.operating_point:
        raise Problem(422, N_("This is its operating point already."))
    version = f"{description.version.split('+')[0][:50]}+m{choice.misses}"
    changed = description.model_copy(update={"operating_point": point, "version": version})
    folder = page.services.config.data_folder / MODELS
    folder.mkdir(mode=0o700, exist_ok=True)
    into = folder / f"{row.digest[:16]}-m{choice.misses}-{round(confidence * 1000)}"
    digest = bundle.copy_with(source, into, changed)
    with page.services.database.begin() as session:
        added = registry.register(
            session,
            digest=digest,
            name=changed.name,
            version=version,
            path=str(into),
            operating_point=point.model_dump(),
            now=page.services.database.now(session),
        )
        page.record(session, "operating point proposed", of=row.digest, digest=digest, misses=choice.misses)
        made = added.id
    return page.go(f"/admin/models/{made}")


@room.get("/{number}/report", dependencies=[audited("evaluation shown")])
@allow(*ADMINS)
def report(page: Page, number: int) -> Response:
    """The page of the evaluation, without any right to run scripts or to reach this site."""
    path = _page_of(page, _find(page, number))
    if path is None:
        raise Problem(404, N_("The page of its evaluation is not here."))
    return FileResponse(path, media_type="text/html; charset=utf-8", headers=_REPORT_HEADERS)


def _states(page: PageMaker) -> dict[ModelState, str]:
    return {state: page.say(label) for state, label in STATES.items()}


def _auc(row: ModelBundle) -> float | None:
    value = (row.evaluation or {}).get("auc")
    return float(value) if isinstance(value, int | float) else None


def _find(page: PageMaker, number: int) -> ModelBundle:
    with page.services.database.read() as session:
        row = session.get(ModelBundle, number)
    if row is None:
        raise Problem(404, N_("There is no such model."))
    return row


def _fault(row: ModelBundle) -> str | None:
    from clearfilm.vision.bundle import fault

    return fault(Path(row.path), row.digest)


def _of_files(row: ModelBundle, confidence: float) -> tuple[str | None, Sequence[Any], list[Choice], float]:
    """What a bundle's files say: fault, figures, places for the operating point, share of abnormal films."""
    # Imported here: few pages need it, and it brings the imaging libraries.
    from clearfilm.vision import bundle

    folder = Path(row.path)
    fault = bundle.fault(folder, row.digest)
    if fault:
        return fault, (), [], 0.0
    metrics = bundle.read_description(folder).metrics
    path = folder / bundle.CALIBRATION
    if bundle.CALIBRATION not in bundle.names(folder):
        return None, metrics, [], 0.0
    found = CalibrationScores.load(path.read_bytes())
    return None, metrics, choices(found, confidence), found.share_abnormal


def _present(places: Sequence[Choice], row: ModelBundle) -> int | None:
    """The place of the bundle's own operating point among the choices."""
    point = row.operating_point or {}
    near = [place.misses for place in places if abs(place.threshold - float(point.get("threshold", 2))) < 1e-5]
    return near[0] if near else None


def _page_of(page: PageMaker, row: ModelBundle) -> Path | None:
    if row.evaluation_digest is None:
        return None
    path = page.services.config.data_folder / EVALUATIONS / f"{row.evaluation_digest[:16]}.html"
    return path if path.is_file() else None
