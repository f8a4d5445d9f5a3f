"""The triage policy at this node: the stage in force, its history, released devices, and what reports say of it."""

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import and_, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from clearfilm.errors import PolicyError
from clearfilm.policy.misses import Assessment, Tally, assess, target_of
from clearfilm.policy.rules import NO_FINDING, earlier_reports
from clearfilm.policy.settings import Policy
from clearfilm.policy.stages import Proposal, Signature, Stage, Standing, counts_with, step, withdraw
from clearfilm.triage import Decision
from db import audit, placements, registry, verdicts
from db.models import Instance, ModelBundle, Report, ReportStatus, Study, StudyPlacement
from db.policy_tables import Device, PolicyStep
from db.verdicts import Verdict

FINDING: Final = "finding"
UNLABELLED: Final = "unlabelled"
LATELY: Final = timedelta(days=30)
ENOUGH_VERDICTS: Final = 10
"""Verdicts lately from which on a blind share measures something at a site without reports."""
# Any fixed number, another one than the audit trail's.
_ADVISORY_LOCK = 0x636C6674


@dataclass(frozen=True)
class InForce:
    """The stage in force."""

    step_id: int | None  # row of the latest step; None: the node has not started yet
    standing: Standing


@dataclass(frozen=True)
class DeviceIdentity:
    """A device as the headers of its films name it, at the sender that they came from."""

    sender: str
    manufacturer: str
    model: str
    serial: str

    @property
    def words(self) -> str:
        """For people."""
        named = " ".join(part for part in (self.manufacturer, self.model, self.serial) if part)
        return f"{named or 'unnamed device'} at {self.sender}"


def in_force(session: Session, policy: Policy) -> InForce:
    """The stage in force; before the first start, the configured one."""
    row = _latest(session)
    return InForce(row.id, _standing(row)) if row else InForce(None, Standing(Stage(policy.stage)))


def begin(session: Session, policy: Policy, *, now: datetime) -> InForce:
    """The same; the first call of all keeps the configured stage in the database. The caller commits."""
    if _latest(session) is None:
        _lock(session)
        if _latest(session) is None:
            signature = Signature("configuration", "policy.stage at the first start", now)
            _add(session, Standing(Stage(policy.stage)), signature, {})
    return in_force(session, policy)


def history(session: Session) -> list[PolicyStep]:
    """All steps, oldest first."""
    return list(session.scalars(select(PolicyStep).order_by(PolicyStep.id)))


def request_step(session: Session, policy: Policy, wanted: Stage, signature: Signature) -> Standing:
    """Go to another stage, or sign the way there; see `clearfilm.policy.stages.step`.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    policy : Policy
    wanted : Stage
    signature : Signature

    Returns
    -------
    Standing
        What is in force then.

    Raises
    ------
    PolicyError
        If the step is not allowed.
    """
    _lock(session)
    before = begin(session, policy, now=signature.at).standing
    found = assessment(session, policy, now=signature.at)
    after = step(before, wanted, signature, alarm=found.alarm if found else None)
    detail: dict[str, Any] = {"misses": asdict(found) if found else None}
    if after.stage is not before.stage and before.proposal and after.stage.rank > before.stage.rank:
        first = before.proposal.signature
        detail["first_signature"] = {"user": first.user, "reason": first.reason, "at": first.at.isoformat()}
    _carry_out(session, before, after, signature, detail)
    return after


def withdraw_step(session: Session, policy: Policy, proposed: Stage, signature: Signature) -> Standing:
    """Take a step up back that waits for its second signature; see `clearfilm.policy.stages.withdraw`.

    Raises
    ------
    PolicyError
        If no such step waits. The caller commits.
    """
    _lock(session)
    before = begin(session, policy, now=signature.at).standing
    after = withdraw(before, proposed, signature)
    assert before.proposal is not None
    first = before.proposal.signature
    withdrawn = {
        "stage": proposed.value, "user": first.user, "reason": first.reason, "at": first.at.isoformat(),
    }  # fmt: skip
    _add(session, after, signature, {"withdrawn": withdrawn})
    audit.record(
        session,
        "policy stage withdrawn",
        actor=signature.user,
        now=signature.at,
        stage=after.stage.value,
        proposed=proposed.value,
        signed_by=first.user,
        reason=signature.reason,
        system_user=signature.system_user,
    )
    return after


def step_down(session: Session, policy: Policy, alarm: str, *, now: datetime) -> Standing | None:
    """Go down to shadow because of an alarm; None: nothing is shown anyway. The caller commits."""
    _lock(session)
    before = begin(session, policy, now=now).standing
    if not before.stage.shows:
        return None
    after = Standing(Stage.SHADOW)
    found = assessment(session, policy, now=now)
    signature = Signature("schedule", f"alarm: {alarm}", now)
    _carry_out(session, before, after, signature, {"misses": asdict(found) if found else None})
    return after


def assessment(session: Session, policy: Policy, *, now: datetime) -> Assessment | None:
    """What is known of the active bundle's miss rate in this period; None: no bundle is active, or no target.

    Studies count that were placed in another stage than off, were analysed, and have a finding: by a labelled
    report that is not preliminary, or, until there is one, by a reader's verdict. Among the studies that were
    read without an answer only verdicts count that were given before it was shown.
    """
    model = registry.active(session)
    if model is None:
        return None
    guaranteed = (model.operating_point or {}).get("sensitivity")
    try:
        target = target_of(policy.target_miss_rate, guaranteed)
    except PolicyError:
        return None
    reported = select(Report.study_id).where(
        Report.superseded_by.is_(None), Report.status != ReportStatus.PRELIMINARY, Report.study_id.is_not(None)
    )
    by_report = Study.id.in_(reported.where(Report.label == FINDING))
    no_report = Study.id.not_in(reported.where(Report.label.in_([FINDING, NO_FINDING])))
    by_verdict = and_(no_report, Study.id.in_(verdicts.with_finding(blind=False)))
    by_blind_verdict = and_(no_report, Study.id.in_(verdicts.with_finding(blind=True)))
    # Once the blind share's longest time is over a report is no longer blind; a verdict given before still is.
    was_blind = and_(or_(StudyPlacement.withheld, StudyPlacement.blind), by_blind_verdict)
    is_unseen = or_(and_(StudyPlacement.withheld, by_report), was_blind).label("is_unseen")
    rows = session.execute(
        select(StudyPlacement.tagged, is_unseen, func.count())
        .join(Study, Study.id == StudyPlacement.study_id)
        .where(
            StudyPlacement.superseded_at.is_(None),
            StudyPlacement.stage != Stage.OFF,
            StudyPlacement.model_id == model.id,
            StudyPlacement.decided_at >= period_start(model, policy, now),
            Study.decision != Decision.NOT_ANALYSED,
            or_(by_report, by_verdict, by_blind_verdict),
        )
        .group_by(StudyPlacement.tagged, is_unseen)
    ).all()
    unseen = Tally.of(_pairs((tagged, number) for tagged, unbiased, number in rows if unbiased))
    everything = Tally.of(_pairs((tagged, number) for tagged, _, number in rows))
    return assess(unseen, everything, target=target, confidence=policy.alarm_confidence)


def _pairs(counts: Iterable[tuple[bool, int]]) -> Iterator[tuple[bool, bool]]:
    """Tagged or not, and a finding: once for each study."""
    for tagged, number in counts:
        yield from itertools.repeat((tagged, True), number)


def period_start(model: ModelBundle, policy: Policy, now: datetime) -> datetime:
    """When the present count began: with the bundle, and anew after each period."""
    began = model.activated_at or model.added_at
    period = timedelta(days=policy.alarm_period_days)
    return began + max(0, (now - began) // period) * period


def prior_labels(session: Session, study: Study) -> tuple[str, ...]:
    """Labels of the current reports about the patient's other studies; `UNLABELLED` where there is none."""
    return tuple(sorted(report.label or UNLABELLED for report in prior_reports(session, study)))


def prior_reports(session: Session, study: Study) -> list[Report]:
    """The current reports about the patient's other studies, in no order."""
    if not study.patient_id:
        return []
    # Two plain statements for two indexes: with one condition for all, the whole table is read for every study.
    by_patient = select(Report).where(Report.patient_id == study.patient_id)
    by_study = select(Report).join(Study, Study.id == Report.study_id).where(Study.patient_id == study.patient_id)
    found = {report.id: report for statement in (by_patient, by_study) for report in session.scalars(statement)}
    return [one for one in found.values() if one.superseded_by is None and not _is_about(study, one)]


def _is_about(study: Study, report: Report) -> bool:
    """Whether a report is the study's own, matched with it already or not."""
    if report.study_id is not None:
        return report.study_id == study.id
    if report.study_instance_uid:
        return report.study_instance_uid == study.study_instance_uid
    return bool(study.accession_number) and report.accession_number == study.accession_number


def guard_by_reports(session: Session, *, now: datetime) -> list[int]:
    """Put lowered studies back whose patient has an earlier report with a finding by now; gives them.

    Reports come, are matched and labelled at any time. The caller commits.
    """
    found = []
    for study in placements.lowered(session):
        others = sum(label != NO_FINDING for label in prior_labels(session, study))
        if others and placements.guard(session, study, "prior-report", earlier_reports(others), now=now):
            found.append(study.id)
    return found


def is_measured(session: Session, *, now: datetime) -> bool:
    """Whether reports or verdicts come in: without either, a blind share would measure nothing."""
    report = select(Report.id).where(Report.received_at >= now - LATELY).limit(1)
    if session.scalars(report).first() is not None:
        return True
    some = select(Verdict.id).where(Verdict.at >= now - LATELY).limit(ENOUGH_VERDICTS)
    return len(session.scalars(some).all()) == ENOUGH_VERDICTS


def notice_devices(
    session: Session, identities: Collection[DeviceIdentity], policy: Policy, *, now: datetime
) -> tuple[str, ...]:
    """Remember devices; gives those that are not released, in words.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    identities : collection of DeviceIdentity
    policy : Policy
        Names the senders that need no release.
    now : datetime
        Aware UTC.
    """
    make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    unreleased = []
    for identity in sorted(set(identities), key=lambda one: one.words):
        if identity.sender in policy.released_senders:
            continue
        values = asdict(identity)
        session.execute(make(Device).values(**values, first_seen_at=now).on_conflict_do_nothing())
        device = session.scalars(select(Device).filter_by(**values)).one()
        if device.released_at is None:
            unreleased.append(identity.words)
    return tuple(unreleased)


def devices(session: Session) -> list[Device]:
    """All devices that were noticed, oldest first."""
    return list(session.scalars(select(Device).order_by(Device.id)))


def release(session: Session, device_id: int, signature: Signature) -> Device:
    """Sign a device; with the second person's signature it is released. Raises PolicyError."""
    device = _device(session, device_id, signature)
    if device.released_at is not None:
        raise PolicyError(f"device {device_id} is released already")
    first = (
        Signature(device.signed_by or "", device.signed_reason or "", device.signed_at) if device.signed_at else None
    )
    if counts_with(first, signature):
        device.released_at, device.released_by, device.released_reason = signature.at, signature.user, signature.reason
        event = "device released"
    else:
        device.signed_at, device.signed_by, device.signed_reason = signature.at, signature.user, signature.reason
        event = "device signed for release"
    _record(session, event, device, signature)
    return device


def withdraw_release(session: Session, device_id: int, signature: Signature) -> Device:
    """Take a release, or the first signature of one, back. One person suffices. Raises PolicyError.

    What is lower and came from the device's sender is back at its place, until it is concluded anew.
    """
    device = _device(session, device_id, signature)
    if device.released_at is not None:
        _put_back(session, device, now=signature.at)
    device.signed_at = device.signed_by = device.signed_reason = None
    device.released_at = device.released_by = device.released_reason = None
    _record(session, "device release withdrawn", device, signature)
    return device


def _put_back(session: Session, device: Device, *, now: datetime) -> None:
    """By sender: only the films themselves name their device, and the new conclusion reads them."""
    words = DeviceIdentity(device.sender, device.manufacturer, device.model, device.serial).words
    for study in placements.lowered(session):
        film = select(Instance.id).where(Instance.study_id == study.id, Instance.sender == device.sender).limit(1)
        if session.scalars(film).first() is not None:
            placements.guard(session, study, "new-device", f"not released any more: {words}", words, now=now)


def _device(session: Session, device_id: int, signature: Signature) -> Device:
    if not signature.user.strip() or not signature.reason.strip():
        raise PolicyError("a user and a reason are needed")
    device = session.get(Device, device_id, with_for_update=True)
    if device is None:
        raise PolicyError(f"no device has the number {device_id}; see `clearfilm policy show`")
    return device


def _record(session: Session, event: str, device: Device, signature: Signature) -> None:
    audit.record(
        session,
        event,
        actor=signature.user,
        now=signature.at,
        device_id=device.id,
        reason=signature.reason,
        system_user=signature.system_user,
    )


def _carry_out(
    session: Session, before: Standing, after: Standing, signature: Signature, detail: dict[str, Any]
) -> None:
    _add(session, after, signature, detail)
    changed = after.stage is not before.stage
    if after.stage.rank < before.stage.rank:
        placements.step_down(session, after.stage, now=signature.at)
    audit.record(
        session,
        "policy stage changed" if changed else "policy stage signed",
        actor=signature.user,
        now=signature.at,
        stage=after.stage.value,
        before=before.stage.value,
        proposed=after.proposal.stage.value if after.proposal else None,
        reason=signature.reason,
        system_user=signature.system_user,
    )


def _add(session: Session, standing: Standing, signature: Signature, detail: dict[str, Any]) -> None:
    session.add(
        PolicyStep(
            at=signature.at,
            stage=standing.stage,
            proposed=standing.proposal.stage.value if standing.proposal else None,
            actor=signature.user,
            reason=signature.reason,
            detail=detail,
        )
    )
    session.flush()


def _latest(session: Session) -> PolicyStep | None:
    return session.scalars(select(PolicyStep).order_by(PolicyStep.id.desc()).limit(1)).first()


def _standing(row: PolicyStep) -> Standing:
    if row.proposed is None:
        return Standing(row.stage)
    return Standing(row.stage, Proposal(Stage(row.proposed), Signature(row.actor, row.reason, row.at)))


def _lock(session: Session) -> None:
    """Two signatures at once must see each other. SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
