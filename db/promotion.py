"""How a bundle becomes the active one: measured gates, two signatures, one transaction; and the way back."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from clearfilm.crashpoints import crash_point
from clearfilm.errors import BundleError, PromotionError, UsageError
from clearfilm.evaluation import Summary
from clearfilm.model_settings import Promotion
from clearfilm.promotion import Evidence, Gate, ShadowStatistics, as_json, fingerprint, gates
from clearfilm.triage import Decision
from db import audit, queue, registry
from db.governance import Signature, SignatureKind
from db.models import Analysis, Instance, ModelBundle, ModelState, Reading, Report, ReportStatus, Study

NEEDED_SIGNATURES = 2
_FINDING, _NO_FINDING = "finding", "no_finding"


@dataclass(frozen=True)
class Ballot:
    """Where a promotion stands.

    Parameters
    ----------
    gates : tuple of Gate
        As measured now.
    fingerprint : str
        What a signature is given for.
    waivers : mapping of str to str
        Failed gate to the signed reason why it does not count.
    signatures : tuple of Signature
        Those that are valid for the fingerprint.
    """

    gates: tuple[Gate, ...]
    fingerprint: str
    waivers: Mapping[str, str]
    signatures: tuple[Signature, ...]

    @property
    def blocking(self) -> tuple[Gate, ...]:
        """Gates that stand in the way."""
        return tuple(gate for gate in self.gates if not gate.passed and gate.name not in self.waivers)


@dataclass(frozen=True)
class Switch:
    """A change of the active bundle."""

    chosen: ModelBundle
    gone: ModelBundle | None


def ballot(session: Session, bundle: ModelBundle, *, fault: str | None, limits: Promotion, now: datetime) -> Ballot:
    """Measure the gates of a bundle and find the signatures that are valid for them.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        For reading.
    bundle : ModelBundle
    fault : str or None
        What is wrong with the bundle's files, as the caller found before: reading them takes too long here.
    limits : Promotion
        Section `promotion` of the configuration.
    now : datetime
        Aware UTC.
    """
    present = registry.active(session)
    evidence = Evidence(
        digest=bundle.digest,
        fault=fault,
        has_operating_point=bundle.operating_point is not None,
        summary=_summary(bundle),
        evaluation_digest=bundle.evaluation_digest,
        active_digest=present.digest if present and present.id != bundle.id else None,
        shadow=shadow_statistics(session, bundle, now=now),
    )
    checked = gates(evidence, limits)
    mark = fingerprint(evidence, checked)
    signed = _valid_signatures(session, bundle, mark)
    waivers = {name: str(why) for signature in signed for name, why in signature.waivers.items()}
    return Ballot(checked, mark, waivers, tuple(signed))


def _summary(bundle: ModelBundle) -> Summary | None:
    if bundle.evaluation is None:
        return None
    try:
        return Summary.model_validate(bundle.evaluation)
    except ValidationError as error:
        raise BundleError(
            f"the evaluation of bundle {bundle.digest[:12]} is not of this version: evaluate it again"
        ) from error


def _valid_signatures(session: Session, bundle: ModelBundle, mark: str) -> list[Signature]:
    """Those under the same gates since the bundle was last active."""
    return [signature for signature in waiting_signatures(session, bundle) if signature.gates_digest == mark]


def waiting_signatures(session: Session, bundle: ModelBundle) -> list[Signature]:
    """Those since the bundle was last active, under whatever gates, that nobody has withdrawn."""
    own = select(Signature).where(Signature.model_id == bundle.id).order_by(Signature.id)
    earlier = registry.activations(session, bundle)
    # The signature that made it active bears the same time. What came after is told by the number: clocks step back.
    used = [row.id for row in session.scalars(own) if earlier and row.signed_at == earlier[-1].activated_at]
    found = own.where(
        Signature.kind == SignatureKind.PROMOTION,
        Signature.withdrawn_at.is_(None),
        Signature.id > max(used, default=0),
    )
    return list(session.scalars(found))


def sign(
    session: Session,
    bundle: ModelBundle,
    *,
    fault: str | None,
    limits: Promotion,
    user: str,
    reason: str,
    waivers: Mapping[str, str],
    system_user: str,
    now: datetime,
) -> tuple[Ballot, Switch | None]:
    """Sign for a promotion; the second user's signature makes the bundle the active one.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        Gates, signature and switch commit together.
    bundle : ModelBundle
        A candidate or shadow; row of the session.
    fault, limits
        See `ballot`.
    user, reason : str
        Who signs, and why.
    waivers : mapping of str to str
        Failed gates that shall not count, each with the reason.
    system_user : str
        Who runs the command, for the audit trail.
    now : datetime
        Aware UTC.

    Returns
    -------
    Ballot
        With the new signature; without it if a gate blocks.
    Switch or None
        None: the bundle is not active yet.

    Raises
    ------
    PromotionError
        If the bundle cannot be promoted, or the user has signed already.
    UsageError
        If user or reason are empty, or a waiver names no gate or one that nobody can waive.
    """
    registry.lock(session)
    session.refresh(bundle)
    user, reason = _named(user, reason)
    _check_promotable(bundle)
    found = ballot(session, bundle, fault=fault, limits=limits, now=now)
    _check_waivers(found.gates, waivers)
    bundle.gates = {"measured_at": now.isoformat(), "fingerprint": found.fingerprint, "gates": as_json(found.gates)}
    own = {gate.name: waivers[gate.name].strip() for gate in found.gates if not gate.passed and gate.name in waivers}
    found = Ballot(found.gates, found.fingerprint, {**found.waivers, **own}, found.signatures)
    if found.blocking:
        names = [gate.name for gate in found.blocking]
        audit.record(
            session, "model promotion blocked", actor=user, now=now, digest=bundle.digest, gates=names,
            system_user=system_user,
        )  # fmt: skip
        return found, None
    if any(_person(signature.user) == _person(user) for signature in found.signatures):
        raise PromotionError(f"{user} has signed already: the second signature must be another user's")
    signature = Signature(
        model_id=bundle.id, kind=SignatureKind.PROMOTION, user=user, reason=reason, waivers=own,
        gates_digest=found.fingerprint, signed_at=now,
    )  # fmt: skip
    session.add(signature)
    audit.record(
        session, "model promotion signed", actor=user, now=now, digest=bundle.digest, reason=reason, waivers=own,
        gates=found.fingerprint, system_user=system_user,
    )  # fmt: skip
    found = Ballot(found.gates, found.fingerprint, found.waivers, (*found.signatures, signature))
    if len(found.signatures) < NEEDED_SIGNATURES:
        return found, None
    crash_point("promotion-signed")
    gone = registry.switch(session, bundle, rollback=False, now=now)
    audit.record(
        session, "model activated", actor=user, now=now, digest=bundle.digest, model=bundle.name,
        signed_by=[signature.user for signature in found.signatures], replaced=gone.digest if gone else None,
    )  # fmt: skip
    crash_point("promotion-switched")
    return found, Switch(bundle, gone)


def withdraw(
    session: Session, bundle: ModelBundle, *, user: str, reason: str, system_user: str, now: datetime
) -> list[str]:
    """Take the signatures for a promotion back; whosever they are, one user suffices.

    Those too that other gates have made void: the gates may come to be as they were.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    bundle : ModelBundle
        Row of the session.
    user, reason, system_user, now
        See `sign`.

    Returns
    -------
    list of str
        Who had signed.

    Raises
    ------
    PromotionError
        If no signature waits for a second one.
    """
    registry.lock(session)
    user, reason = _named(user, reason)
    found = waiting_signatures(session, bundle)
    if not found:
        raise PromotionError(f"no signature for bundle {bundle.digest[:12]} waits for a second one")
    for signature in found:
        signature.withdrawn_at, signature.withdrawn_by, signature.withdrawn_reason = now, user, reason
    names = [signature.user for signature in found]
    audit.record(
        session, "model promotion withdrawn", actor=user, now=now, digest=bundle.digest, signed_by=names,
        reason=reason, system_user=system_user,
    )  # fmt: skip
    return names


def roll_back(
    session: Session, digest: str | None, *, user: str, reason: str, system_user: str, now: datetime
) -> Switch:
    """Make an earlier bundle the active one again.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        Signature and switch commit together.
    digest : str or None
        Beginning of the digest of a bundle that was active; None: the one before the present one.
        The caller has verified its files.
    user, reason, system_user, now
        See `sign`.

    Raises
    ------
    PromotionError
        If there is no such bundle to go back to.
    BundleError
        If the digest is not that of one bundle.
    """
    registry.lock(session)
    user, reason = _named(user, reason)
    chosen = way_back(session, digest)
    session.add(
        Signature(model_id=chosen.id, kind=SignatureKind.ROLLBACK, user=user, reason=reason, waivers={}, signed_at=now)
    )
    crash_point("promotion-signed")
    gone = registry.switch(session, chosen, rollback=True, now=now)
    audit.record(
        session, "model rolled back", actor=user, now=now, digest=chosen.digest, reason=reason,
        replaced=gone.digest if gone else None, system_user=system_user,
    )  # fmt: skip
    crash_point("promotion-switched")
    return Switch(chosen, gone)


def way_back(session: Session, digest: str | None) -> ModelBundle:
    """The bundle that a rollback would make active. Raises PromotionError, BundleError."""
    chosen = registry.find(session, digest) if digest else registry.previous(session)
    if chosen is None:
        raise PromotionError("there is no earlier bundle to go back to; name one: see `clearfilm model list`")
    if chosen.state is ModelState.ACTIVE:
        raise PromotionError(f"bundle {chosen.digest[:12]} is the active one")
    if not registry.activations(session, chosen):
        raise PromotionError(f"bundle {chosen.digest[:12]} was never active: promote it")
    return chosen


def conclude_again(session: Session, bundle: ModelBundle, *, reported: bool, actor: str, now: datetime) -> int:
    """Have the active bundle answer the studies whose present answer is another one's.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    bundle : ModelBundle
        The one whose answers shall not stand.
    reported : bool
        Studies with a radiologist's report too, which nobody waits for.
    actor : str
    now : datetime
        Aware UTC.

    Returns
    -------
    int
        Studies. Each gets a new revision, whose report names the earlier one.

    Raises
    ------
    PromotionError
        If the bundle is the active one.
    """
    if bundle.state is ModelState.ACTIVE:
        raise PromotionError(f"bundle {bundle.digest[:12]} is the active one: it would answer the same again")
    wanted = select(Study).where(Study.study_instance_uid.in_(registry.studies_decided_by(session, bundle)))
    if not reported:
        wanted = wanted.where(Study.reading.is_distinct_from(Reading.REPORTED))
    studies = session.scalars(wanted.order_by(Study.id)).all()
    for study in studies:
        queue.request_conclusion(session, study.id, run_after=now, priority=study.priority, now=now)
    audit.record(
        session, "studies to be concluded again", actor=actor, now=now, digest=bundle.digest, studies=len(studies),
        reported=reported,
    )  # fmt: skip
    return len(studies)


def shadow_statistics(session: Session, bundle: ModelBundle, *, now: datetime) -> ShadowStatistics | None:
    """What a bundle's latest time of silent reading showed; None: there was none.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        For reading.
    bundle : ModelBundle
    now : datetime
        Aware UTC.
    """
    if bundle.shadow_since is None:
        return None
    films = (
        select(
            Instance.study_id,
            func.max(case((Analysis.above, 1), else_=0)).label("above"),
            func.max(Analysis.created_at).label("latest"),
        )
        .join(Instance, Instance.id == Analysis.instance_id)
        .where(Analysis.model_id == bundle.id, Analysis.shadow, Analysis.created_at >= bundle.shadow_since)
        .group_by(Instance.study_id)
        .subquery()
    )
    reports = (
        select(Report.study_id, func.max(case((Report.label == _FINDING, 1), else_=0)).label("abnormal"))
        .where(
            Report.superseded_by.is_(None),
            Report.label.in_([_FINDING, _NO_FINDING]),
            Report.status != ReportStatus.PRELIMINARY,
        )
        .group_by(Report.study_id)
        .subquery()
    )
    rows = session.execute(
        select(films.c.above, reports.c.abnormal, Study.decision, func.count(), func.max(films.c.latest))
        .join(Study, Study.id == films.c.study_id)
        .outerjoin(reports, reports.c.study_id == films.c.study_id)
        .group_by(films.c.above, reports.c.abnormal, Study.decision)
    ).all()
    sides = {0: Decision.NO_SIGNIFICANT_FINDING, 1: Decision.SIGNIFICANT_FINDING}
    end = now if bundle.state is ModelState.SHADOW else max((row[4] for row in rows), default=bundle.shadow_since)
    return ShadowStatistics(
        days=(end - bundle.shadow_since) / timedelta(days=1),
        studies=sum(row[3] for row in rows),
        below=sum(row[3] for row in rows if not row[0]),
        reported=sum(row[3] for row in rows if row[1] is not None),
        abnormal=sum(row[3] for row in rows if row[1]),
        missed=sum(row[3] for row in rows if row[1] and not row[0]),
        agreeing=sum(row[3] for row in rows if row[2] is sides[row[0]]),
    )


def _person(user: str) -> str:
    """A user's name without what does not make another person: case, width, blanks."""
    return " ".join(unicodedata.normalize("NFKC", user).split()).casefold()


def _named(user: str, reason: str) -> tuple[str, str]:
    user, reason = user.strip(), reason.strip()
    if not 1 <= len(user) <= 128:
        raise UsageError("--user needs the name of the person who signs, at most 128 characters")
    if not reason:
        raise UsageError("--reason must say why")
    return user, reason


def _check_promotable(bundle: ModelBundle) -> None:
    if bundle.state is ModelState.ACTIVE:
        raise PromotionError(f"bundle {bundle.digest[:12]} is the active one already")
    if bundle.state is ModelState.RETIRED:
        raise PromotionError(
            f"bundle {bundle.digest[:12]} was active before: `clearfilm model rollback` takes it back at once, "
            "`clearfilm model shadow` makes it a candidate again"
        )


def _check_waivers(checked: tuple[Gate, ...], waivers: Mapping[str, str]) -> None:
    by_name = {gate.name: gate for gate in checked}
    for name, why in waivers.items():
        if name not in by_name:
            raise UsageError(f"there is no gate {name!r}; there are: {', '.join(by_name)}")
        if not by_name[name].waivable:
            raise UsageError(f"nobody can waive the gate {name!r}")
        if not why.strip():
            raise UsageError(f"--waive {name}= needs a reason")
