"""The outbox: which result is where at which destination."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from clearfilm import metrics
from clearfilm.dicom.commitment import CommitmentReport
from db import audit, queue
from db.models import Delivery, DeliveryState, Job, JobKind, JobState, Result, ResultKind, Study
from db.queue import ClaimedJob

MAXIMUM_REFUSALS = 3


@dataclass(frozen=True)
class Parcel:
    """One result on its way to one destination."""

    delivery_id: int
    state: DeliveryState
    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    path: str  # relative to the data folder


def parcels(session: Session, study_id: int, revision: int, destination: str) -> list[Parcel]:
    """A revision's results for a destination, in the order of sending: Secondary Captures, then reports."""
    rows = session.execute(
        select(Delivery, Result)
        .join(Result, Delivery.result_id == Result.id)
        .where(
            Result.study_id == study_id,
            Result.revision == revision,
            Delivery.destination == destination,
        )
        .order_by(Result.position)
    )
    return [_parcel(delivery, result) for delivery, result in rows]


def _parcel(delivery: Delivery, result: Result) -> Parcel:
    return Parcel(
        delivery_id=delivery.id,
        state=delivery.state,
        kind=result.kind,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        path=result.path,
    )


def set_sent(session: Session, delivery_id: int, *, status: int, now: datetime) -> None:
    """The destination stored it."""
    delivery = session.get_one(Delivery, delivery_id)
    if delivery.sent_at is None:
        _count_turnaround(session, delivery.result_id, now)
    delivery.state = DeliveryState.SENT
    delivery.attempts += 1
    delivery.dicom_status = status
    delivery.last_error = None
    delivery.sent_at = now
    of_result = select(Result.study_id).where(Result.id == delivery.result_id).scalar_subquery()
    session.execute(update(Study).where(Study.id == of_result).values(delivered_at=now))


def _count_turnaround(session: Session, result_id: int, now: datetime) -> None:
    """A report arrived for the first time; what is sent again says nothing about the node's speed."""
    received_at = session.scalars(
        select(Study.last_received_at)
        .join(Result, Result.study_id == Study.id)
        .where(Result.id == result_id, Result.kind == ResultKind.REPORT)
    ).one_or_none()
    if received_at is not None:
        metrics.TURNAROUND.observe(max(0.0, (now - received_at).total_seconds()))


def set_not_chosen(session: Session, delivery_ids: list[int]) -> None:
    """Another IOD of the same report was negotiated."""
    session.execute(update(Delivery).where(Delivery.id.in_(delivery_ids)).values(state=DeliveryState.NOT_CHOSEN))


def set_busy(session: Session, delivery_id: int, *, status: int | None, error: str) -> None:
    """A try without success that says nothing about the object."""
    delivery = session.get_one(Delivery, delivery_id)
    delivery.attempts += 1
    delivery.dicom_status, delivery.last_error = status, error


def set_refused(session: Session, delivery_id: int, *, status: int | None, error: str) -> None:
    """A permanent refusal; the third one fails the delivery visibly."""
    set_busy(session, delivery_id, status=status, error=error)
    delivery = session.get_one(Delivery, delivery_id)
    delivery.refusals += 1
    if delivery.refusals >= MAXIMUM_REFUSALS:
        delivery.state = DeliveryState.FAILED


def note(session: Session, job: ClaimedJob, *, error: str) -> None:
    """Tell beside everything that a job has not sent why it still waits."""
    for delivery in session.scalars(_of_job(job, DeliveryState.WAITING)):
        delivery.last_error = error


def fail(session: Session, job: ClaimedJob, *, error: str) -> None:
    """Mark what a delivery job has not sent as failed; a resend makes it waiting again."""
    for delivery in session.scalars(_of_job(job, DeliveryState.WAITING)):
        delivery.state, delivery.last_error = DeliveryState.FAILED, error


def is_superseded(session: Session, job: ClaimedJob) -> bool:
    """Whether a newer revision of the job's study has been concluded."""
    latest = session.scalars(select(Study.revision).where(Study.id == job.study_id)).one()
    return job.revision is not None and job.revision < latest


def supersede(session: Session, job: ClaimedJob) -> None:
    """What a job has not sent is not sent any more: a newer revision says something else."""
    for delivery in session.scalars(_of_job(job, DeliveryState.WAITING)):
        delivery.state = DeliveryState.SUPERSEDED


def _of_job(job: ClaimedJob, state: DeliveryState) -> Select[Delivery]:
    results = select(Result.id).where(Result.study_id == job.study_id, Result.revision == job.revision)
    return select(Delivery).where(
        Delivery.result_id.in_(results),
        Delivery.destination == job.destination,
        Delivery.state == state,
    )


def set_commitment_requested(session: Session, delivery_ids: list[int], transaction_uid: str, *, now: datetime) -> None:
    """Remember under which name the peer will report."""
    session.execute(
        update(Delivery)
        .where(Delivery.id.in_(delivery_ids))
        .values(commitment_uid=transaction_uid, commitment_requested_at=now)
    )


def forget_commitment_request(session: Session, transaction_uid: str) -> None:
    """The request did not reach the peer: it may be repeated at once."""
    session.execute(
        update(Delivery).where(Delivery.commitment_uid == transaction_uid).values(commitment_requested_at=None)
    )


def uncommitted(
    session: Session, destination: str, *, now: datetime, silence: timedelta, longest: timedelta, limit: int
) -> list[Parcel]:
    """What was sent and has not been committed to: not asked for yet, or asked for without an answer.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        For reading.
    destination : str
        Its name in the configuration.
    now : datetime
        Aware UTC.
    silence : datetime.timedelta
        Time after a request until it may be repeated.
    longest : datetime.timedelta
        Time after sending until nobody asks any more.
    limit : int
        Most parcels.
    """
    asked = Delivery.commitment_requested_at
    rows = session.execute(
        select(Delivery, Result)
        .join(Result, Delivery.result_id == Result.id)
        .where(
            Delivery.destination == destination,
            Delivery.state == DeliveryState.SENT,
            Delivery.sent_at > now - longest,
            asked.is_(None) | (asked < now - silence),
        )
        .order_by(Delivery.id)
        .limit(limit)
    )
    return [_parcel(delivery, result) for delivery, result in rows]


def record_commitment(session: Session, report: CommitmentReport, *, now: datetime) -> int:
    """Write down a destination's verdict; what it has lost is sent again.

    Returns
    -------
    int
        How many deliveries the report's transaction named; 0: it is unknown.
    """
    rows = session.execute(
        select(Delivery, Result)
        .join(Result, Delivery.result_id == Result.id)
        .where(Delivery.commitment_uid == report.transaction_uid)
    ).all()
    for delivery, result in rows:
        if result.sop_instance_uid in report.committed:
            delivery.state, delivery.committed_at = DeliveryState.COMMITTED, now
        elif result.sop_instance_uid in report.failed and delivery.state is DeliveryState.SENT:
            _send_again(session, delivery, result, now)
    return len(rows)


def _send_again(session: Session, delivery: Delivery, result: Result, now: datetime) -> None:
    delivery.state, delivery.commitment_requested_at = DeliveryState.WAITING, None
    delivery.last_error = "the destination did not commit to storing it"
    delivery.refusals += 1
    if delivery.refusals >= MAXIMUM_REFUSALS:
        delivery.state = DeliveryState.FAILED
        return
    _queue(session, result.study_id, result.revision, delivery.destination, now)


def resend(session: Session, study: Study, destinations: list[str], *, actor: str, now: datetime) -> int:
    """Send a study's latest results again: the same bytes, without new inference.

    Returns
    -------
    int
        Number of results that wait now, over all destinations.
    """
    results = list(
        session.scalars(select(Result).where(Result.study_id == study.id, Result.revision == study.revision))
    )
    waiting = 0
    for name in destinations:
        for result in results:
            delivery = session.scalars(
                select(Delivery).where(Delivery.result_id == result.id, Delivery.destination == name)
            ).one_or_none() or Delivery(result_id=result.id, destination=name, created_at=now)
            delivery.state, delivery.refusals, delivery.commitment_requested_at = DeliveryState.WAITING, 0, None
            session.add(delivery)
            waiting += 1
        if results:
            _queue(session, study.id, study.revision, name, now)
    audit.record(session, "results sent again", actor=actor, now=now, study_id=study.id, destinations=destinations)
    return waiting


def retry(session: Session, study: Study, destinations: list[str], *, now: datetime) -> int:
    """Make the failed deliveries of a study's latest revision wait again; gives their number."""
    failed = session.scalars(
        select(Delivery)
        .join(Result, Delivery.result_id == Result.id)
        .where(
            Result.study_id == study.id,
            Result.revision == study.revision,
            Delivery.destination.in_(destinations),
            Delivery.state == DeliveryState.FAILED,
        )
    ).all()
    for delivery in failed:
        delivery.state, delivery.refusals = DeliveryState.WAITING, 0
    for name in {delivery.destination for delivery in failed}:
        _queue(session, study.id, study.revision, name, now)
    return len(failed)


def wake(session: Session, destination: str, *, now: datetime) -> None:
    """The destination answers again: what waits for it need not wait any longer."""
    session.execute(
        update(Job)
        .where(
            Job.kind == JobKind.DELIVER,
            Job.destination == destination,
            Job.state == JobState.QUEUED,
            Job.run_after > now,
        )
        .values(run_after=now)
        .execution_options(synchronize_session=False)
    )


def _queue(session: Session, study_id: int, revision: int, destination: str, now: datetime) -> None:
    study = session.get_one(Study, study_id)
    queue.add(
        session,
        JobKind.DELIVER,
        study_id=study_id,
        destination=destination,
        revision=revision,
        priority=study.priority,
        now=now,
    )
