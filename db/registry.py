"""The model bundles that this node knows; exactly one is active. How one becomes active: `db.promotion`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from clearfilm.errors import BundleError
from db import audit
from db.governance import Activation
from db.models import ModelBundle, ModelState, Result, Study

# Any fixed number, another one than the other locks': two switches on PostgreSQL happen one after the other.
_ADVISORY_LOCK = 0x636C6674


def active(session: Session, *, keep: bool = False) -> ModelBundle | None:
    """The bundle whose answers count, if there is one yet.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
    keep : bool
        No switch can commit before this transaction ends.
    """
    found = select(ModelBundle).where(ModelBundle.state == ModelState.ACTIVE)
    return session.scalars(found.with_for_update(read=True) if keep else found).one_or_none()


def known(session: Session) -> list[ModelBundle]:
    """All bundles, newest first."""
    return list(session.scalars(select(ModelBundle).order_by(ModelBundle.id.desc())))


def shadows(session: Session) -> list[ModelBundle]:
    """The bundles that read silently, oldest first."""
    return list(
        session.scalars(select(ModelBundle).where(ModelBundle.state == ModelState.SHADOW).order_by(ModelBundle.id))
    )


def find(session: Session, digest: str) -> ModelBundle:
    """A bundle by its digest or an unambiguous beginning of it. Raises BundleError."""
    found = session.scalars(select(ModelBundle).where(ModelBundle.digest.startswith(digest, autoescape=True))).all()
    if len(found) != 1:
        raise BundleError(f"{len(found)} bundles have a digest that begins with {digest!r}; see `clearfilm model list`")
    return found[0]


def register(
    session: Session,
    *,
    digest: str,
    name: str,
    version: str,
    path: str,
    operating_point: dict[str, Any] | None,
    now: datetime,
) -> ModelBundle:
    """Add a verified bundle as a candidate; one that is known already only gets its new path."""
    bundle = session.scalars(select(ModelBundle).where(ModelBundle.digest == digest)).one_or_none()
    if bundle is None:
        bundle = ModelBundle(
            digest=digest,
            name=name,
            version=version,
            path=path,
            operating_point=operating_point,
            state=ModelState.CANDIDATE,
            added_at=now,
        )
        session.add(bundle)
    bundle.path = path
    session.flush()
    return bundle


def start(session: Session, digest: str, *, actor: str, now: datetime) -> ModelBundle:
    """Make a registered bundle the first active one of a new node: there is nothing to compare it with.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    digest : str
        Of a bundle that `register` has added.
    actor : str
        For the audit trail.
    now : datetime
        Aware UTC.

    Raises
    ------
    BundleError
        If there is an active bundle already, no such bundle, or it has no operating point.
    """
    lock(session)
    if active(session) is not None:
        raise BundleError("there is an active bundle already: promote another one with `clearfilm model promote`")
    chosen = find(session, digest)
    switch(session, chosen, rollback=False, now=now)
    audit.record(session, "model activated", actor=actor, now=now, digest=chosen.digest, model=chosen.name)
    return chosen


def lock(session: Session) -> None:
    """Let switches happen one after the other. SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})


def switch(session: Session, chosen: ModelBundle, *, rollback: bool, now: datetime) -> ModelBundle | None:
    """Make a bundle the active one and retire the present one; running workers follow before their next films.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The switch happens when it commits; the caller has called `lock`.
    chosen : ModelBundle
        Row of the session.
    rollback : bool
        Whether it is a way back.
    now : datetime
        Aware UTC.

    Returns
    -------
    ModelBundle or None
        The one that went.

    Raises
    ------
    BundleError
        If the bundle has no operating point.
    """
    if chosen.operating_point is None:
        raise BundleError(f"bundle {chosen.digest[:12]} has no fitted operating point: it cannot decide anything")
    gone = active(session)
    session.execute(update(ModelBundle).where(ModelBundle.state == ModelState.ACTIVE).values(state=ModelState.RETIRED))
    chosen.state, chosen.activated_at = ModelState.ACTIVE, now
    chosen.shadow_since, chosen.shadow_note = None, None
    session.add(
        Activation(model_id=chosen.id, replaced_id=gone.id if gone else None, rollback=rollback, activated_at=now)
    )
    session.flush()
    return gone


def previous(session: Session) -> ModelBundle | None:
    """The bundle that the active one replaced when it was promoted; None: there is none.

    After a rollback this is not the bundle that was left, but the one still further back.
    """
    present = active(session)
    if present is None:
        return None
    replaced = session.scalars(
        select(Activation.replaced_id)
        .where(Activation.model_id == present.id, Activation.rollback.is_(False))
        .order_by(Activation.id.desc())
        .limit(1)
    ).first()
    return session.get_one(ModelBundle, replaced) if replaced is not None else None


def activations(session: Session, bundle: ModelBundle) -> list[Activation]:
    """When a bundle became active, oldest first."""
    return list(session.scalars(select(Activation).where(Activation.model_id == bundle.id).order_by(Activation.id)))


def studies_decided_by(session: Session, bundle: ModelBundle) -> Sequence[str]:
    """Study Instance UIDs of the studies whose present conclusion is a bundle's."""
    return session.scalars(
        select(Study.study_instance_uid)
        .join(Result, (Result.study_id == Study.id) & (Result.revision == Study.revision))
        .where(Result.model_id == bundle.id)
        .distinct()
        .order_by(Study.study_instance_uid)
    ).all()


def count_decided_by(session: Session, bundle: ModelBundle) -> int:
    """How many studies a bundle's present conclusions are of."""
    decided = (
        select(Study.id)
        .join(Result, (Result.study_id == Study.id) & (Result.revision == Study.revision))
        .where(Result.model_id == bundle.id)
        .distinct()
    )
    return session.scalar(select(func.count()).select_from(decided.subquery())) or 0


def keep_evaluation(
    session: Session, bundle: ModelBundle, report: dict[str, Any], digest: str, *, actor: str, now: datetime
) -> None:
    """Attach an evaluation; earlier signatures under another one are void from now on.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    bundle : ModelBundle
    report : dict
        Content of `report.json`, checked by the caller.
    digest : str
        SHA-256 of the file.
    actor : str
    now : datetime
    """
    if bundle.evaluation_digest == digest:
        return
    bundle.evaluation, bundle.evaluation_digest = report, digest
    audit.record(session, "model evaluated", actor=actor, now=now, digest=bundle.digest, evaluation=digest)


def begin_shadow(session: Session, bundle: ModelBundle, *, actor: str, now: datetime) -> None:
    """Have a candidate read live films silently.

    Raises
    ------
    BundleError
        If it is neither a candidate nor a retired bundle, or has no operating point.
    """
    if bundle.state not in (ModelState.CANDIDATE, ModelState.RETIRED):
        raise BundleError(
            f"bundle {bundle.digest[:12]} is {bundle.state.value}: only a candidate can begin to read silently"
        )
    if bundle.operating_point is None:
        raise BundleError(f"bundle {bundle.digest[:12]} has no fitted operating point: there is nothing to compare")
    bundle.state, bundle.shadow_since, bundle.shadow_note = ModelState.SHADOW, now, None
    audit.record(session, "model shadow started", actor=actor, now=now, digest=bundle.digest)


def end_shadow(session: Session, bundle: ModelBundle, *, actor: str, now: datetime, note: str | None = None) -> bool:
    """End silent reading; what was read is kept.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    bundle : ModelBundle
    actor : str
    now : datetime
    note : str, optional
        Why, if not a user wants it.

    Returns
    -------
    bool
        False: it was no shadow any more, nothing was changed.
    """
    if bundle.state is not ModelState.SHADOW:
        return False
    was_active = bool(activations(session, bundle))
    bundle.state = ModelState.RETIRED if was_active else ModelState.CANDIDATE
    bundle.shadow_note = note
    audit.record(
        session, "model shadow ended", actor=actor, now=now, digest=bundle.digest, note=note or "wanted by a user"
    )
    return True
