"""Where an answer comes from: result, films, readings, bundle, training run, cohort. No patient data."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from clearfilm.errors import BundleError, ClearfilmError
from db import registry, training_runs
from db.governance import TrainingRun
from db.models import Analysis, Instance, ModelBundle, Result, Study


def trace(session: Session, identifier: str) -> dict[str, Any]:
    """Walk back from a result, a study or a bundle.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        For reading.
    identifier : str
        SOP Instance UID of a result, Study Instance UID (its present conclusion), or beginning of a bundle's digest.

    Returns
    -------
    dict
        With the keys `result` and `films` (None and empty for a bundle), and `model`.

    Raises
    ------
    ClearfilmError
        If the node knows nothing of that name.
    """
    result = session.scalars(select(Result).where(Result.sop_instance_uid == identifier)).one_or_none()
    study = session.scalars(select(Study).where(Study.study_instance_uid == identifier)).one_or_none()
    if result is not None:
        return _of_results(session, session.get_one(Study, result.study_id), [result])
    if study is not None:
        of_revision = select(Result).where(Result.study_id == study.id, Result.revision == study.revision)
        return _of_results(session, study, list(session.scalars(of_revision.order_by(Result.position))))
    try:
        bundle = registry.find(session, identifier)
    except BundleError:
        raise ClearfilmError(f"no result, study or bundle is called {identifier}") from None
    return {"study_instance_uid": None, "results": [], "films": [], "model": _model(session, bundle)}


def _of_results(session: Session, study: Study, results: list[Result]) -> dict[str, Any]:
    number = results[0].model_id if results else None
    bundle = session.get(ModelBundle, number) if number is not None else None
    # A film that came later is of a later revision.
    made = min((result.created_at for result in results), default=None)
    films = session.scalars(select(Instance).where(Instance.study_id == study.id).order_by(Instance.id)).all()
    return {
        "study_instance_uid": study.study_instance_uid,
        "results": [
            {
                "sop_instance_uid": result.sop_instance_uid,
                "kind": result.kind.value,
                "revision": result.revision,
                "decision": result.decision.value,
                "sha256": result.digest,
                "created_at": result.created_at,
            }
            for result in results
        ],
        "films": [_film(session, film, bundle) for film in films if made is None or film.received_at <= made],
        "model": _model(session, bundle) if bundle else None,
    }


def _film(session: Session, film: Instance, bundle: ModelBundle | None) -> dict[str, Any]:
    reading = session.scalars(
        select(Analysis).where(
            Analysis.instance_id == film.id,
            Analysis.model_id == (bundle.id if bundle else None),
            Analysis.shadow.is_(False),
        )
    ).one_or_none()
    return {
        "sop_instance_uid": film.sop_instance_uid,
        "sha256": film.digest,
        "received_at": film.received_at,
        "reason": film.reason,
        "analysis": {
            "at": reading.created_at,
            "score": round(reading.score, 4),
            "above_operating_point": reading.above,
            "preprocessing_id": reading.preprocessing_id,
            "device": reading.device,
        }
        if reading
        else None,
    }


def _model(session: Session, bundle: ModelBundle) -> dict[str, Any]:
    run = training_runs.of_bundle(session, bundle.digest)
    return {
        "digest": bundle.digest,
        "name": bundle.name,
        "version": bundle.version,
        "state": bundle.state.value,
        "evaluation_digest": bundle.evaluation_digest,
        "path": bundle.path,
        "run": run_facts(run) if run else None,
    }


def run_facts(run: TrainingRun) -> dict[str, Any]:
    """A training run as JSON values."""
    return {
        "folder": run.folder,
        "outcome": run.outcome.value,
        "detail": run.detail,
        "started_by": run.started_by,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "bundle_digest": run.bundle_digest,
        "settings": run.settings,
        "cohort": {"digest": run.cohort_digest, "folder": run.cohort_folder, **run.cohort},
    }
