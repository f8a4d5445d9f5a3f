"""Job kind `conclude`: the worst of a quiet study's films becomes its decision, objects and outbox."""

import hashlib
import logging
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pydicom
from pydicom import Dataset
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from clearfilm import __version__, metrics
from clearfilm.config import Config
from clearfilm.counts import counted
from clearfilm.crashpoints import crash_point
from clearfilm.errors import ClearfilmError, LostLease
from clearfilm.maps import UNREADABLE_MAP
from clearfilm.policy.rules import disagreed
from clearfilm.process import process_name
from clearfilm.triage import Decision
from clearfilm.vision.bundle import read_description
from db import conclusions, placements, policies, queue, registry, switches, verdicts
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
from db.switches import Stage
from worker import failures
from worker.leases import Leases, patiently
from worker.place import Placer, Ruling
from worker.results.model import (
    BuiltObject,
    Film,
    ModelIdentity,
    NodeIdentity,
    PersonalCorrection,
    Predecessor,
    StudyConclusion,
)
from worker.results.secondary_capture import build_secondary_captures
from worker.results.structured_report import build_reports
from worker.store import Store
from worker.twins import without_raw_twins

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
RETRY = timedelta(seconds=30)


@dataclass(frozen=True)
class FilmRow:
    """A film with its reading, if it has one."""

    instance: Instance
    analysis: Analysis | None


@dataclass(frozen=True)
class Gathered:
    """What a conclusion is made of, and what must not have changed when it is published."""

    conclusion: StudyConclusion
    ruling: Ruling
    correction: verdicts.Correction | None


class Concluder:
    """The loop that concludes studies.

    Parameters
    ----------
    config : Config
        Sections `node`, `study`, `results`, `policy` and `destinations` are used.
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
        self._policy = config.policy
        self._placer = Placer(config, database)
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
            job = patiently(self._claim, stop)
            if job is None:
                stop.wait(POLL_SECONDS)
                continue
            self._leases.hold(job)
            try:
                self._conclude(job)
            except LostLease:
                logger.warning("lease lost, nothing published", extra={"job_id": job.id})
            except (ClearfilmError, SQLAlchemyError) as error:
                # The installation is at fault (disk, bundle, database), not the study: no strike.
                logger.exception("conclusion postponed", extra={"job_id": job.id})
                self._postpone(job, str(error) if isinstance(error, ClearfilmError) else "the database is away")
            except Exception as error:
                logger.exception("conclusion failed", extra={"job_id": job.id})
                failures.strike(self._database, job, error, retry=RETRY, quiet=self._quiet)
            finally:
                self._leases.release(job)

    def _claim(self) -> ClaimedJob | None:
        with self._database.begin() as session:
            if switches.is_paused(session, Stage.ANALYSE):
                return None
            return queue.claim(session, JobKind.CONCLUDE, owner=self._owner, now=self._database.now(session))

    def _conclude(self, job: ClaimedJob) -> None:
        gathered = self._gather(job)
        if gathered is None:
            return
        conclusion = gathered.conclusion
        captures = build_secondary_captures(conclusion)
        reports = build_reports(conclusion, captures)
        written: list[tuple[BuiltObject, str]] = []
        try:
            written += [(made, self._store.write_result(made.content)) for made in (*captures, *reports)]
            crash_point("result-file-before-commit")
            obstacle = self._publish(job, gathered, written)
        except IntegrityError as error:
            self._remove(written)
            raise LostLease(f"job {job.id}: the study was concluded by another worker") from error
        except (ClearfilmError, SQLAlchemyError):
            self._remove(written)
            raise
        if obstacle:
            self._remove(written)
            self._postpone(job, obstacle, timedelta(seconds=1))
            return
        crash_point("concluded-before-send")

    def _remove(self, written: list[tuple[BuiltObject, str]]) -> None:
        for _, path in written:
            self._store.remove(path)

    def _gather(self, job: ClaimedJob) -> Gathered | None:
        """All that the conclusion needs, and where the study goes; None: it is not due, or films must be read again."""
        with self._database.begin() as session:
            now = self._database.now(session)
            study = session.scalars(select(Study).where(Study.id == job.study_id).with_for_update()).one()
            model = registry.active(session)
            films = _films(session, study.id, model)
            outdated = [film.instance for film in films if _is_outdated(film, model)]
            for instance in outdated:
                _read_again(session, instance, study, now)
            ready = conclusions.is_ready(session, study, quiet=self._quiet, now=now)
            done = _was_foreseen(session, study, job) or verdicts.is_called_off(session, study)
            if outdated or not ready or done:
                queue.finish(session, job, now=now)
                return None
            predecessors = _sent_reports(session, study)
            correction = verdicts.correction(session, study)
        damaged = [row for row in films if row.instance.state is InstanceState.ANALYSED and not self._has_map(row)]
        if damaged:
            self._have_read_again(job, damaged)
            return None
        conclusion, ruling = self._conclusion(study, films, model, predecessors, now)
        if correction is not None and correction.decision is not conclusion.decision:
            return _corrected(conclusion, ruling, correction)
        return Gathered(conclusion, ruling, correction)

    def _has_map(self, row: FilmRow) -> bool:
        try:
            path = row.analysis.map_path if row.analysis else None
            return path is not None and self._store.read_map(path) is not None
        except UNREADABLE_MAP:
            logger.exception("map is missing or damaged", extra={"instance_id": row.instance.id})
            return False

    def _have_read_again(self, job: ClaimedJob, rows: list[FilmRow]) -> None:
        """A reading without its map is no reading: the end of the new ones queues the conclusion again."""
        with self._database.begin() as session:
            now = self._database.now(session)
            study = session.get_one(Study, job.study_id)
            for row in rows:
                if row.analysis is not None:
                    session.execute(delete(Analysis).where(Analysis.id == row.analysis.id))
                _read_again(session, session.get_one(Instance, row.instance.id), study, now)
            queue.finish(session, job, now=now)

    def _conclusion(
        self,
        study: Study,
        rows: list[FilmRow],
        model: ModelBundle | None,
        predecessors: tuple[Predecessor, ...],
        now: datetime,
    ) -> tuple[StudyConclusion, Ruling]:
        received = tuple(self._film(row, study) for row in rows)
        films = without_raw_twins(received)
        decision, reason = decide(films)
        origins = [(row.instance.sender, film.source) for row, film in zip(rows, received, strict=True)]
        ruling = self._placer.place(study, films, decision, model, origins)
        conclusion = StudyConclusion(
            films=films,
            decision=decision,
            reason=reason,
            model=_identity(model) if model else None,
            revision=study.revision + 1,
            concluded_at=now.astimezone(),
            node=self._node,
            predecessors=predecessors,
            suggests_later=ruling.placement.suggests_later,
        )
        return conclusion, ruling

    def _film(self, row: FilmRow, study: Study) -> Film:
        instance, analysis = row.instance, row.analysis
        source = _read_header(self._store.path(instance.path), instance, study)
        if analysis is None or analysis.map_path is None or instance.state is not InstanceState.ANALYSED:
            return Film(source, instance.digest, reason=instance.reason or "analysis failed")
        film_map = self._store.read_map(analysis.map_path)
        return Film(
            source,
            instance.digest,
            score=analysis.score,
            evidence=film_map.evidence,
            display=film_map.display,
            above=analysis.above,
        )

    def _publish(self, job: ClaimedJob, gathered: Gathered, written: list[tuple[BuiltObject, str]]) -> str | None:
        """One transaction: results, placement, outbox, study, end of the job; or why it cannot be yet."""
        conclusion, ruling = gathered.conclusion, gathered.ruling
        with self._database.begin() as session:
            now = self._database.now(session)
            if _is_being_delivered(session, job.study_id, now):
                return "an earlier conclusion is being delivered"
            model = registry.active(session, keep=True)
            if (model.id if model else None) != ruling.model_id:
                return "the model was switched meanwhile"
            if policies.in_force(session, self._policy).step_id != ruling.step_id:
                return "the policy has changed"
            study = session.get_one(Study, job.study_id)
            if verdicts.correction(session, study) != gathered.correction:
                return "a reader's verdict changed meanwhile"
            queue.finish(session, job, now=now)
            _supersede(session, study)
            study.revision = conclusion.revision
            study.decision, study.reason = conclusion.decision, conclusion.reason
            study.concluded_at = now
            if conclusions.is_ready(session, study, quiet=timedelta(0), now=now):
                study.state = StudyState.CONCLUDED
            placements.record(session, study, ruling.placement, model, now=now)
            verdicts.settle(session, study, now=now)
            # What a destination has been told is always corrected; otherwise no answer may give the tag away.
            withheld = ruling.placement.withheld and not _sent_reports(session, study)
            destinations = [] if withheld else self._destinations
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
                    model_id=ruling.model_id,
                    created_at=now,
                )
                session.add(result)
                session.flush()
                session.add_all(
                    Delivery(result_id=result.id, destination=name, created_at=now) for name in destinations
                )
            for name in destinations:
                queue.add(
                    session,
                    JobKind.DELIVER,
                    study_id=study.id,
                    destination=name,
                    revision=conclusion.revision,
                    priority=study.priority,
                    now=now,
                )
        metrics.DECISIONS.labels(conclusion.decision.value).inc()
        logger.info(
            "study concluded",
            extra={
                "study_id": job.study_id,
                "revision": conclusion.revision,
                "decision": conclusion.decision,
                "level": ruling.placement.level,
                "withheld": withheld,
            },
        )
        return None

    def _postpone(self, job: ClaimedJob, error: str, wait: timedelta = RETRY) -> None:
        try:
            with self._database.begin() as session:
                now = self._database.now(session)
                conclusions.postpone(session, job, run_after=now + wait, error=error, now=now)
        except (LostLease, SQLAlchemyError):
            logger.exception("the lease runs out by itself", extra={"job_id": job.id})


def _corrected(conclusion: StudyConclusion, ruling: Ruling, correction: verdicts.Correction) -> Gathered:
    """The same with a person's answer, at the study's usual place; what the algorithm said stays beside it."""
    own = conclusion.decision
    corrected = replace(
        conclusion,
        decision=correction.decision,
        reason=f"corrected by a radiologist; the AI's answer was: {own.words}",
        correction=PersonalCorrection(correction.user, correction.at.astimezone(), own, conclusion.reason),
        suggests_later=False,
    )
    return Gathered(corrected, replace(ruling, placement=disagreed(ruling.placement)), correction)


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
    total = counted(len(films), "film")
    if above:
        return Decision.SIGNIFICANT_FINDING, f"{above} of {total} at or above the operating point"
    if unread:
        reasons = "; ".join(sorted({film.reason or "" for film in unread}))
        if len(films) == 1:
            return Decision.NOT_ANALYSED, reasons
        return Decision.NOT_ANALYSED, f"{len(unread)} of {total} not analysed: {reasons}"
    return Decision.NO_SIGNIFICANT_FINDING, f"{total} below the operating point"


def _films(session: Session, study_id: int, model: ModelBundle | None) -> list[FilmRow]:
    """The study's films in order of reception, each with its reading by the active bundle: no other one counts."""
    instances = session.scalars(select(Instance).where(Instance.study_id == study_id).order_by(Instance.id)).all()
    found = select(Analysis).where(
        Analysis.instance_id.in_([instance.id for instance in instances]),
        Analysis.model_id == (model.id if model else None),
        Analysis.shadow.is_(False),
    )
    readings = {analysis.instance_id: analysis for analysis in session.scalars(found)}
    return [FilmRow(instance, readings.get(instance.id)) for instance in instances]


def _was_foreseen(session: Session, study: Study, job: ClaimedJob) -> bool:
    """Whether the present conclusion holds all that this job was queued for: it would only repeat it.

    The end of an analysis queues a conclusion. One that was claimed just before may already see that film.
    """
    if study.state is not StudyState.CONCLUDED or study.concluded_at is None:
        return False
    return job.created_at <= study.concluded_at and not verdicts.is_pending(session, study)


def _is_outdated(film: FilmRow, model: ModelBundle | None) -> bool:
    """Read by an earlier bundle only: one conclusion has one model, so it is read again."""
    return model is not None and film.instance.state is InstanceState.ANALYSED and film.analysis is None


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


def _is_being_delivered(session: Session, study_id: int, now: datetime) -> bool:
    """An earlier revision on the wire must arrive, and be named as predecessor, before the next is made."""
    running = select(Job.id).where(
        Job.study_id == study_id,
        Job.kind == JobKind.DELIVER,
        Job.state == JobState.RUNNING,
        Job.lease_until >= now,
    )
    return session.scalars(running).first() is not None


def _supersede(session: Session, study: Study) -> None:
    """What waits of earlier revisions is not sent any more: it would contradict what comes now."""
    waiting = select(Job.id, Job.revision, Job.destination).where(
        Job.study_id == study.id, Job.kind == JobKind.DELIVER, Job.state == JobState.QUEUED
    )
    for job_id, revision, destination in session.execute(waiting).all():
        earlier = select(Result.id).where(Result.study_id == study.id, Result.revision == revision)
        session.execute(
            update(Delivery)
            .where(
                Delivery.result_id.in_(earlier),
                Delivery.destination == destination,
                Delivery.state == DeliveryState.WAITING,
            )
            .values(state=DeliveryState.SUPERSEDED)
        )
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
