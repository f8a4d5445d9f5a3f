"""The rows of the list: what is shown of each study, read for one page at a time."""

import enum
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from clearfilm.policy.rules import Level
from clearfilm.triage import Decision
from db import listing, verdicts
from db.listing import Place, Rank, Viewpoint
from db.models import Analysis, Instance, InstanceState, Outstanding, Reading, Study, StudyPlacement, StudyState


class Step(enum.StrEnum):
    """The furthest step that a study has made on its way through the node."""

    QUEUED = "queued"
    ANALYSED = "analysed"
    NOT_ANALYSED = "not_analysed"
    CONCLUDED = "concluded"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True)
class ListedStudy:
    """One row, as one reader may see it."""

    study_id: int
    study_instance_uid: str
    key: tuple[object, ...]  # of its place in the list
    rank: Rank
    flagged: bool  # readers are told that it may be read later
    returns_at: datetime | None  # later only
    patient_name: str | None
    patient_id: str | None
    accession_number: str | None
    sex: str | None
    age_years: float | None
    views: tuple[str, ...]
    location: str | None
    sender: str | None
    description: str | None
    decision: Decision | None  # None: no answer is shown
    reason: str | None  # why not analysed, or why failed
    step: Step
    reading: Reading | None
    contradicted: bool  # readers disagree with each other about the answer that is shown
    received_at: datetime
    read_at: datetime | None
    waits: bool  # still to be read
    films: int
    picture: int | None  # row of the film that stands for the study
    revision: int


def rows(session: Session, places: Sequence[Place], viewpoint: Viewpoint) -> list[ListedStudy]:
    """What is shown of some studies, in the same order."""
    numbers = [place.study_id for place in places]
    studies = {study.id: study for study in session.scalars(select(Study).where(Study.id.in_(numbers)))}
    answered = set(session.scalars(select(Study.id).where(Study.id.in_(numbers), listing.answer_is_shown(viewpoint))))
    placements = {
        placement.study_id: placement
        for placement in session.scalars(
            select(StudyPlacement).where(StudyPlacement.study_id.in_(numbers), StudyPlacement.superseded_at.is_(None))
        )
    }
    films = _films(session, numbers)
    contradicted = verdicts.contradicted(session, numbers)
    return [
        _row(
            place,
            studies[place.study_id],
            placements.get(place.study_id),
            films[place.study_id],
            viewpoint,
            shows_answer=place.study_id in answered,
            contradicted=place.study_id in answered & contradicted,
        )
        for place in places
        if place.study_id in studies
    ]


@dataclass(frozen=True)
class _Film:
    number: int
    state: InstanceState
    view: str | None
    has_picture: bool


def _films(session: Session, numbers: Sequence[int]) -> dict[int, list[_Film]]:
    found: dict[int, list[_Film]] = defaultdict(list)
    query = (
        select(Instance.study_id, Instance.id, Instance.state, Instance.view_position, Analysis.id)
        .outerjoin(
            Analysis,
            (Analysis.instance_id == Instance.id) & Analysis.map_path.is_not(None) & Analysis.shadow.is_(False),
        )
        .where(Instance.study_id.in_(numbers))
        .order_by(Instance.id)
    )
    known: set[int] = set()
    for study_id, number, state, view, analysis in session.execute(query):
        if number not in known:
            known.add(number)
            found[study_id].append(_Film(number, state, view, analysis is not None))
    return found


def _row(
    place: Place,
    study: Study,
    placement: StudyPlacement | None,
    films: list[_Film],
    viewpoint: Viewpoint,
    *,
    shows_answer: bool,
    contradicted: bool,
) -> ListedStudy:
    flag = placement if placement and placement.shown and placement.revision == study.revision else None
    flagged = flag is not None and viewpoint.shows and study.state is StudyState.CONCLUDED
    later = flag is not None and flag.level is Level.LATER and place.rank is Rank.LATER
    return ListedStudy(
        study_id=study.id,
        study_instance_uid=study.study_instance_uid,
        key=place.key,
        rank=place.rank,
        flagged=flagged and place.rank in (Rank.USUAL, Rank.LATER),
        returns_at=flag.returns_at if flag and later else None,
        patient_name=study.patient_name,
        patient_id=study.patient_id,
        accession_number=study.accession_number,
        sex=study.patient_sex,
        age_years=study.age_years,
        views=tuple(dict.fromkeys(film.view for film in films if film.view)),
        location=study.location,
        sender=study.sender,
        description=study.study_description,
        decision=study.decision if shows_answer else None,
        reason=study.reason if shows_answer or study.outstanding is Outstanding.FAILED else None,
        step=_step(study, films, shows_answer=shows_answer),
        reading=study.reading,
        contradicted=contradicted,
        received_at=study.first_received_at,
        read_at=study.read_at,
        waits=study.read_at is None and study.first_received_at >= viewpoint.unread_since,
        films=len(films),
        picture=next((film.number for film in films if film.has_picture), None),
        revision=study.revision,
    )


def _is_delivered(study: Study) -> bool:
    """Everything of the latest conclusion is at its destinations."""
    if study.delivered_at is None or study.concluded_at is None or study.outstanding is not None:
        return False
    return study.delivered_at >= study.concluded_at


def _step(study: Study, films: list[_Film], *, shows_answer: bool) -> Step:
    if study.outstanding is Outstanding.FAILED:
        return Step.FAILED
    if study.state is StudyState.CONCLUDED and shows_answer:
        return Step.DELIVERED if _is_delivered(study) else Step.CONCLUDED
    if not films or any(film.state is InstanceState.QUEUED for film in films):
        return Step.QUEUED
    if study.state is not StudyState.CONCLUDED and all(film.state is InstanceState.NOT_ANALYSED for film in films):
        return Step.NOT_ANALYSED
    return Step.ANALYSED
