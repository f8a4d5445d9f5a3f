"""The model bundles that this node knows; exactly one is active."""

from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from clearfilm.errors import BundleError
from db import audit
from db.models import ModelBundle, ModelState


def active(session: Session) -> ModelBundle | None:
    """The bundle whose answers count, if there is one yet."""
    return session.scalars(select(ModelBundle).where(ModelBundle.state == ModelState.ACTIVE)).one_or_none()


def known(session: Session) -> list[ModelBundle]:
    """All bundles, newest first."""
    return list(session.scalars(select(ModelBundle).order_by(ModelBundle.id.desc())))


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


def activate(session: Session, digest: str, *, actor: str, now: datetime) -> ModelBundle:
    """Make a known bundle the active one; running workers pick it up before their next film.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The switch happens when it commits.
    digest : str
        Hexadecimal digest or an unambiguous beginning of it.
    actor : str
        Who wants it, for the audit trail.
    now : datetime
        Aware UTC.

    Raises
    ------
    BundleError
        If no bundle, or more than one, has such a digest, or it has no operating point.
    """
    found = session.scalars(select(ModelBundle).where(ModelBundle.digest.startswith(digest, autoescape=True))).all()
    if len(found) != 1:
        raise BundleError(f"{len(found)} bundles have a digest that begins with {digest!r}; see `clearfilm model list`")
    if found[0].operating_point is None:
        raise BundleError(f"bundle {found[0].digest[:12]} has no fitted operating point: it cannot decide anything")
    session.execute(update(ModelBundle).where(ModelBundle.state == ModelState.ACTIVE).values(state=ModelState.RETIRED))
    chosen = found[0]
    chosen.state, chosen.activated_at = ModelState.ACTIVE, now
    audit.record(session, "model activated", actor=actor, now=now, digest=chosen.digest, model=chosen.name)
    return chosen
