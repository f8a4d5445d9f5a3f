"""Job kind `conclude`: the worst of a quiet study's films becomes its decision, objects and outbox."""

import hashlib
import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pydicom
from pydicom import Dataset
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from clearfilm import __version__
from clearfilm.config import Config
from clearfilm.crashpoints import crash_point
from clearfilm.errors import LostLease, StorageError
from clearfilm.process import process_name
from clearfilm.triage import Decision
from clearfilm.vision.bundle import read_description
from db import conclusions, queue, registry
from db.models import (
    Analysis,
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    Job,
    JobKind,
    JobState,
    ModelBundle,
    Result,
    ResultKind,
    Study,
    StudyState,
)
from db.queue import ClaimedJob
from db.session import Database
from worker import failures
from worker.leases import Leases
from worker.results.model import (
    BuiltObject,
    Film,
    ModelIdentity,
    NodeIdentity,
    Predecessor,
    StudyConclusion,
)
from worker.results.secondary_capture import build_secondary_captures
from worker.results.structured_report import build_reports
from worker.store import Store

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
RETRY = timedelta(seconds=30)
DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"


@dataclass(frozen=True)
class FilmRow:
    """A film with its reading, if it has one."""

    instance: Instance
    analysis: Analysis | None


class Concluder:
    """The loop that concludes studies.

    Parameters
    ----------
    config : Config
        Sections `node`, `study`, `results` and `destinations` are used.
    database : Database
        Of this process.
    store : Store
        Maps in, result objects out.
    leases : Leases
        Heartbeat of the claimed jobs.
    """

    def __init__(self, config: Config, database: Database, store: Store, leases: Leases) -> None:
        self._database = database
        self._store = store
        self._leases = leases
        self._quiet = timedelta(seconds=config.study.quiet_seconds)
        self._destinations = [destination.name for destination in config.destinations]
        self._owner = process_name()
        self._node = NodeIdentity(
            ae_title=config.node.ae_title,
            manufacturer=config.results.manufacturer,
            institution_name=config.results.institution_name,
            software_version=__version__,
        )

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the study under way is finished first."""
        while not stop.is_set():
            with self._database.begin() as session:
                job = queue.claim(session, JobKind.CONCLUDE, owner=self._owner, now=self._database.now(session))
            if job is None:
                stop.wait(POLL_SECONDS)
                continue
            self._leases.hold(job)
            try:
                self._conclude(job)
            except LostLease:
                logger.warning("lease lost, nothing published", extra={"job_id": job.id})
            except Exception as error:
                logger.exception("conclusion failed", extra={"job_id": job.id})
                failures.strike(self._database, job, error, retry=RETRY, quiet=self._quiet)
            finally:
                self._leases.release(job)

    def _conclude(self, job: ClaimedJob) -> None:
        conclusion = self._gather(job)
        if conclusion is None:
            return
        captures = build_secondary_captures(conclusion)
        reports = build_reports(conclusion, captures)
        try:
            written = [(made, self._store.write_result(made.content)) for made in (*captures, *reports)]
        except StorageError as error:
            self._postpone(job, str(error))
            return
        crash_point("result-file-before-commit")
        try:
            self._publish(job, conclusion, written)
        except (LostLease, IntegrityError):
            # Somebody else has published this revision: his files count, ours go.
            for _, path in written:
                self._store.remove(path)
            raise LostLease(f"job {job.id}: the study was concluded by another worker") from None
        crash_point("concluded-before-send")

    def _gather(self, job: ClaimedJob) -> StudyConclusion | None:
        """Read everything that the conclusion needs; None: it is not due, or films must be read again."""
        with self._database.begin() as session:
            now = self._database.now(session)
            study = session.scalars(select(Study).where(Study.id == job.study_id).with_for_update()).one()
            model = registry.active(session)
            films = _films(session, study.id, model)
            outdated = [film.instance for film in films if _is_outdated(film, model)]
            for instance in outdated:
                _read_again(session, instance, study, now)
            if outdated or not conclusions.is_ready(session, study, quiet=self._quiet, now=now):
                queue.finish(session, job, now=now)
                return None
            predecessors = _sent_reports(session, study)
        return self._conclusion(study, films, model, predecessors, now)

    def _conclusion(
        self,
        study: Study,
        rows: list[FilmRow],
        model: ModelBundle | None,
        predecessors: tuple[Predecessor, ...],
        now: datetime,
    ) -> StudyConclusion:
        films = tuple(self._film(row, study) for row in rows)
        decision, reason = decide(films)
        return StudyConclusion(
            films=films,
            decision=decision,
            reason=reason,
            model=_identity(model) if model else None,
            revision=study.revision + 1,
            concluded_at=now.astimezone(),
            node=self._node,
            predecessors=predecessors,
        )

    def _film(self, row: FilmRow, study: Study) -> Film:
        instance, analysis = row.instance, row.analysis
        source = _read_header(self._store.path(instance.path), instance, study)
        if analysis is None or instance.state is not InstanceState.ANALYSED:
            return Film(source, instance.digest, reason=instance.reason or "analysis failed")
        try:
            film_map = self._store.read_map(analysis.map_path)
        except (OSError, ValueError, KeyError):
            logger.error("map is missing or damaged", extra={"instance_id": instance.id})
            return Film(source, instance.digest, reason="its stored heatmap is missing")
        return Film(
            source,
            instance.digest,
            score=analysis.score,
            evidence=film_map.evidence,
            display=film_map.display,
            above=analysis.above,
        )

    def _publish(self, job: ClaimedJob, conclusion: StudyConclusion, written: list[tuple[BuiltObject, str]]) -> None:
        """One transaction: results, outbox, study, end of the job."""
        with self._database.begin() as session:
            now = self._database.now(session)
            queue.finish(session, job, now=now)
            study = session.get_one(Study, job.study_id)
            model = registry.active(session)
            _supersede(session, study)
            study.revision = conclusion.revision
            study.decision, study.reason = conclusion.decision, conclusion.reason
            study.concluded_at = now
            if conclusions.is_ready(session, study, quiet=timedelta(0), now=now):
                study.state = StudyState.CONCLUDED
            for position, (made, path) in enumerate(written):
                result = Result(
                    study_id=study.id,
                    revision=conclusion.revision,
                    kind=ResultKind(made.kind.value),
                    sop_class_uid=made.sop_class_uid,
                    sop_instance_uid=made.sop_instance_uid,
                    series_instance_uid=made.series_instance_uid,
                    transfer_syntax_uid=made.transfer_syntax_uid,
                    position=position,
                    path=path,
                    digest=hashlib.sha256(made.content).hexdigest(),
                    decision=conclusion.decision,
                    model_id=model.id if model else None,
                    created_at=now,
                )
                session.add(result)
                session.flush()
                session.add_all(
                    Delivery(result_id=result.id, destination=name, created_at=now) for name in self._destinations
                )
            for name in self._destinations:
                queue.add(
                    session,
                    JobKind.DELIVER,
                    study_id=study.id,
                    destination=name,
                    revision=conclusion.revision,
                    priority=study.priority,
                    now=now,
                )
        logger.info(
            "study concluded",
            extra={
                "study_id": job.study_id,
                "revision": conclusion.revision,
                "decision": conclusion.decision,
            },
        )

    def _postpone(self, job: ClaimedJob, error: str) -> None:
        with self._database.begin() as session:
            now = self._database.now(session)
            queue.postpone(session, job, run_after=now + RETRY, error=error)


def decide(films: tuple[Film, ...]) -> tuple[Decision, str]:
    """The study's decision: the worst of its films.

    One film above the operating point makes a significant finding. Otherwise one film that was not
    analysed, of whatever kind, leaves the study not analysed: nobody has looked at it.

    Parameters
    ----------
    films : tuple of Film
        At least one.

    Returns
    -------
    tuple of Decision and str
        The decision, and the reason in plain words.
    """
    above = sum(film.above for film in films)
    unread = [film for film in films if not film.analysed]
    total = "1 film" if len(films) == 1 else f"{len(films)} films"
    if above:
        return Decision.SIGNIFICANT_FINDING, f"{above} of {total} at or above the operating point"
    if unread:
        reasons = "; ".join(sorted({film.reason or "" for film in unread}))
        if len(films) == 1:
            return Decision.NOT_ANALYSED, reasons
        return Decision.NOT_ANALYSED, f"{len(unread)} of {total} not analysed: {reasons}"
    return Decision.NO_SIGNIFICANT_FINDING, f"{total} below the operating point"


def _films(session: Session, study_id: int, model: ModelBundle | None) -> list[FilmRow]:
    """The study's films in order of reception, each with its reading by the active bundle or another one.

    A For Processing film only counts where its For Presentation twin is missing: the twin is what was read.
    """
    instances = session.scalars(select(Instance).where(Instance.study_id == study_id).order_by(Instance.id)).all()
    if any(instance.sop_class_uid == DX_FOR_PRESENTATION for instance in instances):
        instances = [instance for instance in instances if instance.sop_class_uid != DX_FOR_PROCESSING]
    readings: dict[int, Analysis] = {}
    for analysis in session.scalars(
        select(Analysis).where(Analysis.instance_id.in_([instance.id for instance in instances])).order_by(Analysis.id)
    ):
        known = readings.get(analysis.instance_id)
        if known is None or model is None or known.model_id != model.id:
            readings[analysis.instance_id] = analysis
    return [FilmRow(instance, readings.get(instance.id)) for instance in instances]


def _is_outdated(film: FilmRow, model: ModelBundle | None) -> bool:
    """Read by an earlier bundle: one conclusion has one model, so it is read again."""
    return (
        model is not None
        and film.instance.state is InstanceState.ANALYSED
        and film.analysis is not None
        and film.analysis.model_id != model.id
    )


def _read_again(session: Session, instance: Instance, study: Study, now: datetime) -> None:
    instance.state = InstanceState.QUEUED
    queue.add(
        session,
        JobKind.ANALYSE,
        study_id=study.id,
        instance_id=instance.id,
        priority=study.priority,
        now=now,
    )


def _sent_reports(session: Session, study: Study) -> tuple[Predecessor, ...]:
    """The reports of the latest revision that reached a destination."""
    sent = (
        select(Result)
        .join(Delivery, Delivery.result_id == Result.id)
        .where(
            Result.study_id == study.id,
            Result.kind == ResultKind.REPORT,
            Delivery.state.in_([DeliveryState.SENT, DeliveryState.COMMITTED]),
        )
    )
    latest = session.scalar(select(func.max(sent.subquery().c.revision)))
    reports = session.scalars(sent.where(Result.revision == latest).distinct().order_by(Result.id)).all()
    return tuple(
        Predecessor(
            sop_class_uid=report.sop_class_uid,
            sop_instance_uid=report.sop_instance_uid,
            series_instance_uid=report.series_instance_uid,
            study_instance_uid=study.study_instance_uid,
        )
        for report in reports
    )


def _supersede(session: Session, study: Study) -> None:
    """Results of earlier revisions that no destination has seen yet are not sent any more."""
    waiting = select(Job.revision, Job.destination, Job.id).where(
        Job.study_id == study.id, Job.kind == JobKind.DELIVER, Job.state == JobState.QUEUED
    )
    for revision, destination, job_id in session.execute(waiting).all():
        earlier = select(Result.id).where(Result.study_id == study.id, Result.revision == revision)
        of_job = (Delivery.result_id.in_(earlier), Delivery.destination == destination)
        if session.scalars(
            select(Delivery.id).where(*of_job, Delivery.state != DeliveryState.WAITING).limit(1)
        ).first():
            continue  # half of it is there already; the rest follows
        session.execute(update(Delivery).where(*of_job).values(state=DeliveryState.SUPERSEDED))
        session.execute(update(Job).where(Job.id == job_id).values(state=JobState.DONE, last_error="superseded"))


def _identity(row: ModelBundle) -> ModelIdentity:
    description = read_description(Path(row.path))
    point = description.operating_point
    assert point is not None, "a bundle without one is never activated"
    return ModelIdentity(
        name=row.name,
        version=row.version,
        digest=row.digest,
        operating_threshold=point.threshold,
        evidence_threshold=description.evidence_threshold,
        note=description.note,
        preprocessing_id=description.preprocessing_id,
    )


def _read_header(path: Path, instance: Instance, study: Study) -> Dataset:
    """The film's header; only its identity if it cannot be read, so that a result is made all the same."""
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception:
        logger.exception("header cannot be read", extra={"instance_id": instance.id})
    header = Dataset()
    header.StudyInstanceUID = study.study_instance_uid
    header.SOPInstanceUID = instance.sop_instance_uid
    header.SOPClassUID = instance.sop_class_uid
    return header
