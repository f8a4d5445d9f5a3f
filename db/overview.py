"""What the node is doing, in counts, and the way of one study."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import placements, registry
from db.models import (
    Analysis,
    Audit,
    Delivery,
    Instance,
    Job,
    JobKind,
    JobState,
    ModelBundle,
    ModelState,
    Result,
    Study,
    StudyState,
)


def counts(session: Session, *, now: datetime) -> dict[str, Any]:
    """Counts by state; keys are those of the contract of `clearfilm status --json`."""
    studies: dict[str, int] = defaultdict(int)
    for state, decision, number in session.execute(
        select(Study.state, Study.decision, func.count()).group_by(Study.state, Study.decision)
    ):
        # An open or failed study has no answer, whatever an earlier revision said.
        studies[decision.value if state is StudyState.CONCLUDED and decision else state.value] += number
    jobs: dict[str, dict[str, int]] = {kind.value: {} for kind in JobKind}
    for kind, job_state, number in session.execute(
        select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
    ):
        jobs[kind.value][job_state.value] = number
    deliveries: dict[str, dict[str, int]] = defaultdict(dict)
    for destination, delivery_state, number in session.execute(
        select(Delivery.destination, Delivery.state, func.count()).group_by(Delivery.destination, Delivery.state)
    ):
        deliveries[destination][delivery_state.value] = number
    instances = session.execute(select(Instance.state, func.count()).group_by(Instance.state)).all()
    oldest = session.scalar(select(func.min(Job.created_at)).where(Job.state.in_([JobState.QUEUED, JobState.RUNNING])))
    model = registry.active(session)
    return {
        "studies": dict(studies),
        "instances": {state.value: number for state, number in instances},
        "jobs": jobs,
        "deliveries": dict(deliveries),
        "oldest_waiting_seconds": max(0.0, (now - oldest).total_seconds()) if oldest else 0.0,
        "model": {"name": model.name, "version": model.version, "digest": model.digest} if model else None,
        "shadows": [_shadow(session, bundle) for bundle in registry.known(session) if _is_shown(bundle)],
    }


def _is_shown(bundle: ModelBundle) -> bool:
    """A bundle that reads silently, or did until it was switched off for a reason."""
    return bundle.state is ModelState.SHADOW or bundle.shadow_note is not None


def _shadow(session: Session, bundle: ModelBundle) -> dict[str, Any]:
    read = select(func.count()).where(Analysis.model_id == bundle.id, Analysis.shadow)
    return {
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "reads": bundle.state is ModelState.SHADOW,
        "since": bundle.shadow_since,
        "films": session.scalar(read) or 0,
        "switched_off": bundle.shadow_note,
    }


def timeline(session: Session, study_instance_uid: str) -> dict[str, Any] | None:
    """Everything that happened to one study, without patient data; None: the node does not know it."""
    study = session.scalars(select(Study).where(Study.study_instance_uid == study_instance_uid)).one_or_none()
    if study is None:
        return None
    return {
        "study_instance_uid": study.study_instance_uid,
        "state": study.state.value,
        "decision": study.decision.value if study.decision else None,
        "reason": study.reason,
        "revision": study.revision,
        "ordered_priority": study.ordered_priority,
        "first_received_at": study.first_received_at,
        "last_received_at": study.last_received_at,
        "concluded_at": study.concluded_at,
        "placements": [placements.as_json(placed) for placed in placements.history(session, study.id)],
        "films": [_film(session, instance) for instance in _rows(session, Instance, study.id)],
        "results": [_result(session, result) for result in _rows(session, Result, study.id)],
        "jobs": [_job(job) for job in _rows(session, Job, study.id)],
        "events": [
            {"at": entry.at, "event": entry.event, "actor": entry.actor, **entry.detail}
            for entry in _rows(session, Audit, study.id)
        ],
    }


def _rows(session: Session, table: Any, study_id: int) -> list[Any]:
    return list(session.scalars(select(table).where(table.study_id == study_id).order_by(table.id)))


def _film(session: Session, instance: Instance) -> dict[str, Any]:
    analyses = session.scalars(select(Analysis).where(Analysis.instance_id == instance.id).order_by(Analysis.id))
    return {
        "sop_instance_uid": instance.sop_instance_uid,
        "sha256": instance.digest,
        "sender": instance.sender,
        "received_at": instance.received_at,
        "state": instance.state.value,
        "reason": instance.reason,
        "conflict": instance.conflict,
        "analyses": [
            {
                "at": analysis.created_at,
                "score": round(analysis.score, 4),
                "above_operating_point": analysis.above,
                "device": analysis.device,
                "facts": analysis.facts,
                "shadow": analysis.shadow,
            }
            for analysis in analyses
        ],
    }


def _result(session: Session, result: Result) -> dict[str, Any]:
    deliveries = session.scalars(select(Delivery).where(Delivery.result_id == result.id))
    return {
        "kind": result.kind.value,
        "revision": result.revision,
        "decision": result.decision.value,
        "sop_class_uid": result.sop_class_uid,
        "sop_instance_uid": result.sop_instance_uid,
        "sha256": result.digest,
        "created_at": result.created_at,
        "deliveries": [
            {
                "destination": delivery.destination,
                "state": delivery.state.value,
                "attempts": delivery.attempts,
                "dicom_status": f"0x{delivery.dicom_status:04X}" if delivery.dicom_status is not None else None,
                "last_error": delivery.last_error,
                "sent_at": delivery.sent_at,
                "committed_at": delivery.committed_at,
            }
            for delivery in deliveries
        ],
    }


def _job(job: Job) -> dict[str, Any]:
    return {
        "kind": job.kind.value,
        "state": job.state.value,
        "destination": job.destination or None,
        "attempts": job.attempts,
        "retries": job.retries,
        "run_after": job.run_after,
        "last_error": job.last_error,
        "finished_at": job.finished_at,
    }
