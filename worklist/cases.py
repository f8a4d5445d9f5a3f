"""What the page of a case shows, as one reader may see it. Words are made here; texts of others are as received."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from clearfilm.ages import age_years
from clearfilm.errors import BundleError
from clearfilm.names import PersonName, person_name
from clearfilm.policy import rules
from clearfilm.triage import Decision
from clearfilm.vision.bundle import Description, read_description
from db import placements, policies, verdicts
from db.models import (
    Analysis,
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    ModelBundle,
    Reading,
    Result,
    ResultKind,
    Study,
    StudyState,
)
from db.verdicts import Given
from worklist.answers import Problem
from worklist.page import PageMaker
from worklist.reasons import reason_words
from worklist.templates import N_

MOST_PRIORS: Final = 20
DECISIONS: Final[Mapping[Decision, str]] = {
    Decision.SIGNIFICANT_FINDING: N_("significant finding"),
    Decision.NO_SIGNIFICANT_FINDING: N_("no significant finding"),
    Decision.NOT_ANALYSED: N_("not analysed"),
}
CHIPS: Final[Mapping[Decision, str]] = {
    Decision.SIGNIFICANT_FINDING: "finding",
    Decision.NO_SIGNIFICANT_FINDING: "clear",
    Decision.NOT_ANALYSED: "wait",
}
FILM_STATES: Final[Mapping[InstanceState, str]] = {
    InstanceState.QUEUED: N_("waiting for analysis"),
    InstanceState.ANALYSED: N_("analysed"),
    InstanceState.NOT_ANALYSED: N_("not analysed"),
    InstanceState.FAILED: N_("failed"),
}
DELIVERY_STATES: Final[Mapping[DeliveryState, str]] = {
    DeliveryState.WAITING: N_("waiting"),
    DeliveryState.SENT: N_("sent"),
    DeliveryState.COMMITTED: N_("sent and kept there"),
    DeliveryState.FAILED: N_("failed"),
    DeliveryState.SUPERSEDED: N_("not sent: a newer answer replaced it"),
}
REPORT_LABELS: Final[Mapping[str, str]] = {
    "finding": N_("report with a finding"),
    "no_finding": N_("report without finding"),
    "indeterminate": N_("report is not clear"),
    policies.UNLABELLED: N_("no label yet"),
}
KINDS: Final[Mapping[ResultKind, str]] = {
    ResultKind.REPORT: N_("report"),
    ResultKind.SECONDARY_CAPTURE: N_("picture with map"),
}


@dataclass(frozen=True)
class Standing:
    """A study, and what this reader may see and say of it now."""

    study: Study
    answer_shown: bool
    concluded: bool
    own: Given | None  # the reader's present verdict
    given: tuple[Given, ...]  # everybody's
    blind: bool  # no answer is shown, so the reader may only say what they see
    stage_shows: bool  # answers are shown as a rule
    corrected_by: verdicts.Correction | None = None  # the answer that is shown is a person's
    is_own_answer: bool = False  # the reader's

    @property
    def contradicted(self) -> bool:
        """Readers disagree with each other."""
        return len({given.finding for given in self.given}) > 1


@dataclass(frozen=True)
class Score:
    """The number of a film, with the operating point it was held against."""

    value: float
    score: str
    threshold: str
    band: str
    above: bool


@dataclass(frozen=True)
class FilmLine:
    """A film of the study."""

    id: int
    number: int
    state: str
    chip: str
    reason: str
    score: Score | None
    sender: str
    received_at: datetime
    has_map: bool
    conflict: bool
    decided: bool = False  # of several films the one that made the answer a finding
    first: bool = False  # the page opens on it


@dataclass(frozen=True)
class Model:
    """The bundle that answered."""

    name: str
    version: str
    digest: str
    description: Description | None  # None: the bundle is not there any more


@dataclass(frozen=True)
class Sent:
    """One result at one destination."""

    destination: str
    kind: str
    revision: int
    state: DeliveryState
    words: str
    at: datetime | None
    status: str | None
    error: str | None
    superseded: bool


@dataclass(frozen=True)
class Prior:
    """Another study of the same patient."""

    study_id: int
    date: str
    description: str | None
    received_at: datetime
    words: str
    chip: str
    reason: str | None


@dataclass(frozen=True)
class PriorReport:
    """A radiologist's report about the patient whose films this node does not have."""

    accession_number: str | None
    date: str  # of the report; empty: not told
    received_at: datetime
    words: str
    chip: str


@dataclass(frozen=True)
class Case:
    """Everything but the timeline."""

    standing: Standing
    name: PersonName
    age: float | None
    words: str
    chip: str
    explanation: str
    films: tuple[FilmLine, ...]
    model: Model | None
    sent: tuple[Sent, ...]
    priors: tuple[Prior, ...]
    prior_reports: tuple[PriorReport, ...]
    may_wait: bool  # it is flagged, and its longest wait is not over
    correction: verdicts.Correction | None
    pending: bool  # a corrected result is about to be made


def standing(page: PageMaker, session: Session, study_id: int) -> Standing:
    """The study and what the reader may see. Raises Problem if it does not exist (any more).

    A study of the blind share must look like one whose answer has not come yet: only clear studies are in it.
    """
    study = session.get(Study, study_id)
    if study is None:
        raise Problem(
            404, N_("There is no such study; perhaps it was deleted because it is older than the node keeps.")
        )
    login = page.visit.login
    assert login is not None
    stage = policies.in_force(session, page.services.config.policy).standing.stage
    given = tuple(verdicts.present(session, study))
    own = next((one for one in given if one.user_id == login.user_id), None)
    concluded = study.state is StudyState.CONCLUDED and study.decision is not None
    withheld = study.withheld and study.reading is not Reading.REPORTED
    shown = concluded and stage.shows and (not withheld or own is not None)
    corrected_by = _corrected_by(session, study) if shown else None
    return Standing(
        study=study,
        answer_shown=shown,
        concluded=concluded,
        own=own,
        given=given if shown else (),
        blind=not shown and study.state is not StudyState.FAILED,
        stage_shows=stage.shows,
        corrected_by=corrected_by,
        is_own_answer=corrected_by is not None and corrected_by.user_id == login.user_id,
    )


def reading(session: Session, film: Instance) -> Analysis | None:
    """The latest reading of a film that was part of an answer."""
    of_film = select(Analysis).where(Analysis.instance_id == film.id, Analysis.shadow.is_(False))
    return session.scalars(of_film.order_by(Analysis.id.desc()).limit(1)).first()


def case(page: PageMaker, session: Session, study_id: int) -> Case:
    """Gather the case. Raises Problem if there is no such study."""
    found = standing(page, session, study_id)
    study = found.study
    model = _model(session, study) if found.answer_shown else None
    films = _films(page, session, found, model)
    return Case(
        standing=found,
        name=person_name(study.patient_name),
        age=study.age_years
        if study.age_years is not None
        else age_years(None, study.patient_birth_date, study.study_date),
        **_answer(page, session, found, films),
        films=films,
        model=model,
        sent=_sent(page, session, study) if found.answer_shown else (),
        priors=_priors(page, session, study),
        prior_reports=_prior_reports(page, session, study),
        may_wait=found.answer_shown and _may_wait(page, session, study),
        correction=verdicts.correction(session, study) if found.answer_shown else None,
        pending=found.answer_shown and verdicts.is_pending(session, study),
    )


def _may_wait(page: PageMaker, session: Session, study: Study) -> bool:
    """By the clock, as in the list, whether or not the schedule has put the study back already."""
    placed = placements.current(session, study.id)
    now = page.services.database.now(session)
    return placed is not None and rules.returned(placed.placement, now=now).suggests_later


def _answer(page: PageMaker, session: Session, found: Standing, films: Sequence[FilmLine]) -> dict[str, Any]:
    study = found.study
    if study.state is StudyState.FAILED:
        return {"words": page.say(N_("failed")), "chip": "failed", "explanation": reason_words(page.say, study.reason)}
    if found.concluded and not found.stage_shows:
        hidden = page.say(N_("The answer is not shown to you yet: agreement is being measured without bias."))
        return {"words": page.say(N_("no answer shown")), "chip": "wait", "explanation": hidden}
    if not found.answer_shown:
        words = page.say(N_("no answer yet"))
        waits = page.say(N_("Films are being analysed, or may still come."))
        return {"words": words, "chip": "wait", "explanation": waits}
    assert study.decision is not None
    return {
        "words": page.say(DECISIONS[study.decision]),
        "chip": CHIPS[study.decision],
        "explanation": _explanation(page, found, films),
    }


def _explanation(page: PageMaker, found: Standing, films: Sequence[FilmLine]) -> str:
    """Why this answer, in one sentence."""
    study, correction = found.study, found.corrected_by
    if correction is not None:
        return page.say(N_("Corrected by {name}. The answer of the model was another one."), name=correction.user)
    above = sum(film.score.above for film in films if film.score)
    if study.decision is Decision.SIGNIFICANT_FINDING:
        return page.say(N_("At or above the operating point: {above} of {total}."), above=above, total=len(films))
    if study.decision is Decision.NO_SIGNIFICANT_FINDING:
        return page.say(N_("Every film is below the operating point. That is no diagnosis."))
    unread = sum(film.score is None for film in films)
    return page.say(
        N_("Not analysed: {unread} of {total}. Nothing is said about this study."),
        unread=unread,
        total=len(films),
    )


def _corrected_by(session: Session, study: Study) -> verdicts.Correction | None:
    if not (study.reason or "").startswith("corrected by a radiologist"):
        return None
    correction = verdicts.correction(session, study)
    return correction if correction is not None and correction.revision < study.revision else None


def _films(page: PageMaker, session: Session, found: Standing, model: Model | None) -> tuple[FilmLine, ...]:
    instances = session.scalars(select(Instance).where(Instance.study_id == found.study.id).order_by(Instance.id))
    lines = [_film(page, session, found, film, number, model) for number, film in enumerate(instances, 1)]
    return _with_first(lines, found)


def _with_first(films: Sequence[FilmLine], found: Standing) -> tuple[FilmLine, ...]:
    """Mark the film with the highest score, which the page opens on; films without an answer stay as they came."""
    scored = [film for film in films if film.score]
    if not scored:
        return tuple(films)
    worst = max(scored, key=lambda film: film.score.value if film.score else 0.0)
    above = worst.score is not None and worst.score.above
    decided = above and len(films) > 1 and found.study.decision is Decision.SIGNIFICANT_FINDING
    return tuple(replace(film, first=True, decided=decided) if film is worst else film for film in films)


def _film(
    page: PageMaker, session: Session, found: Standing, film: Instance, number: int, model: Model | None
) -> FilmLine:
    analysis = reading(session, film) if film.state is InstanceState.ANALYSED else None
    shown = analysis if found.answer_shown else None
    threshold = _threshold(model)
    chips = {InstanceState.QUEUED: "wait", InstanceState.FAILED: "failed"}
    return FilmLine(
        id=film.id,
        number=number,
        state=page.say(FILM_STATES[film.state]),
        chip=chips.get(film.state, "finding" if shown and shown.above else "clear" if shown else "wait"),
        reason=reason_words(page.say, film.reason),
        score=_score(page, shown, threshold) if shown else None,
        sender=film.sender,
        received_at=film.received_at,
        has_map=shown is not None and shown.map_path is not None,
        conflict=film.conflict,
    )


def _threshold(model: Model | None) -> float | None:
    point = model.description.operating_point if model and model.description else None
    return point.threshold if point else None


def _score(page: PageMaker, analysis: Analysis, threshold: float | None) -> Score:
    if threshold is None:
        return Score(analysis.score, f"{analysis.score:.2f}", "–", "", analysis.above)
    decimals = next((n for n in range(2, 7) if f"{analysis.score:.{n}f}" != f"{threshold:.{n}f}"), 6)
    texts = f"{analysis.score:.{decimals}f}", f"{threshold:.{decimals}f}"
    return Score(
        analysis.score, *texts, page.say(_band(analysis.score, threshold, above=analysis.above)), analysis.above
    )


def _band(score: float, threshold: float, *, above: bool) -> str:
    if above:
        far = score >= (1 + threshold) / 2
        return N_("well above the operating point") if far else N_("above the operating point, near it")
    return N_("well below the operating point") if score < threshold / 2 else N_("below the operating point, near it")


def _model(session: Session, study: Study) -> Model | None:
    query = select(ModelBundle).join(Result, Result.model_id == ModelBundle.id)
    row = session.scalars(query.where(Result.study_id == study.id, Result.revision == study.revision).limit(1)).first()
    if row is None:
        return None
    try:
        description = read_description(Path(row.path))
    except BundleError:
        description = None
    return Model(row.name, row.version, row.digest, description)


def _sent(page: PageMaker, session: Session, study: Study) -> tuple[Sent, ...]:
    """Newest answer first; of three forms of the same report only the one that is sent."""
    rows = session.execute(
        select(Delivery, Result)
        .join(Result, Result.id == Delivery.result_id)
        .where(Result.study_id == study.id, Delivery.state != DeliveryState.NOT_CHOSEN)
        .order_by(Result.revision.desc(), Delivery.destination, Result.position)
    ).all()
    lines: list[Sent] = []
    seen: set[tuple[int, str]] = set()
    for delivery, result in rows:
        key = (result.revision, delivery.destination)
        undecided = delivery.state in (DeliveryState.WAITING, DeliveryState.SUPERSEDED)
        if result.kind is ResultKind.REPORT and undecided:
            if key in seen:
                continue
            seen.add(key)
        lines.append(_delivery(page, delivery, result))
    return tuple(lines)


def _delivery(page: PageMaker, delivery: Delivery, result: Result) -> Sent:
    return Sent(
        destination=delivery.destination,
        kind=page.say(KINDS[result.kind]),
        revision=result.revision,
        state=delivery.state,
        words=page.say(DELIVERY_STATES[delivery.state]),
        at=delivery.committed_at or delivery.sent_at,
        status=f"0x{delivery.dicom_status:04X}" if delivery.dicom_status is not None else None,
        error=delivery.last_error if delivery.state in (DeliveryState.WAITING, DeliveryState.FAILED) else None,
        superseded=delivery.state is DeliveryState.SUPERSEDED,
    )


def _priors(page: PageMaker, session: Session, study: Study) -> tuple[Prior, ...]:
    """Other studies under the same Patient ID, unless birth dates say that it is another patient."""
    if not study.patient_id:
        return ()
    query = select(Study.id).where(Study.patient_id == study.patient_id, Study.id != study.id)
    if study.patient_birth_date:
        same = Study.patient_birth_date == study.patient_birth_date
        query = query.where(or_(Study.patient_birth_date.is_(None), Study.patient_birth_date == "", same))
    newest = query.order_by(Study.study_date.desc(), Study.id.desc()).limit(MOST_PRIORS)
    return tuple(_prior(page, standing(page, session, number)) for number in session.scalars(newest).all())


def _prior_reports(page: PageMaker, session: Session, study: Study) -> tuple[PriorReport, ...]:
    """Reports that may keep the study at its place though there is nothing of them to open; newest first."""
    found = [report for report in policies.prior_reports(session, study) if report.study_id is None]
    found.sort(key=lambda report: report.reported_at or report.received_at, reverse=True)
    return tuple(
        PriorReport(
            accession_number=report.accession_number,
            date=f"{report.reported_at:%Y-%m-%d}" if report.reported_at else "",
            received_at=report.received_at,
            words=page.say(REPORT_LABELS.get(report.label or "", REPORT_LABELS[policies.UNLABELLED])),
            chip="finding" if report.label == "finding" else "wait",
        )
        for report in found[:MOST_PRIORS]
    )


def _prior(page: PageMaker, found: Standing) -> Prior:
    study = found.study
    words, chip = page.say(N_("no answer yet")), "wait"
    if found.answer_shown and study.decision is not None:
        words, chip = page.say(DECISIONS[study.decision]), CHIPS[study.decision]
    date = study.study_date or ""
    return Prior(
        study_id=study.id,
        date=f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 and date.isdigit() else date,
        description=study.study_description,
        received_at=study.first_received_at,
        words=words,
        chip=chip,
        reason=study.reason if found.answer_shown and study.decision is Decision.NOT_ANALYSED else None,
    )
