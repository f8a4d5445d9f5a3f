"""What is outstanding for a study always agrees with its jobs and deliveries, whatever happens to them."""

import itertools
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from clearfilm.dicom.commitment import CommitmentReport
from clearfilm.errors import LostLease
from clearfilm.triage import Decision
from db import deliveries, intake, operations, queue
from db.deliveries import Parcel
from db.intake import ReceivedFilm, StudyAttributes
from db.models import (
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    Job,
    JobKind,
    JobState,
    Outstanding,
    Result,
    ResultKind,
    Study,
    StudyState,
)
from db.queue import ClaimedJob
from db.session import Database

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
DESTINATIONS = ("pacs", "archive")
HOUR = timedelta(hours=1)


def by_its_work(session: Session, study: Study) -> Outstanding | None:
    """The same, thought out anew from every job and every delivery."""
    jobs = session.scalars(select(Job).where(Job.study_id == study.id, Job.state == JobState.FAILED))
    states = set(
        session.scalars(
            select(Delivery.state).join(Result).where(Result.study_id == study.id, Result.revision == study.revision)
        )
    )
    failed = any(job.revision in (None, study.revision) for job in jobs)
    if failed or study.state is StudyState.FAILED or DeliveryState.FAILED in states:
        return Outstanding.FAILED
    return Outstanding.WAITING if DeliveryState.WAITING in states else None


def check(database: Database) -> None:
    with database.read() as session:
        for study in session.scalars(select(Study)):
            assert study.outstanding is by_its_work(session, study)


class Node:
    """What the processes of a node do, one small transaction after another."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.held: list[ClaimedJob] = []
        self.now = NOW
        with database.begin() as session:
            for study in session.scalars(select(Study)):
                session.delete(study)

    def act(self, name: str, choice: int) -> None:
        self.now += timedelta(minutes=1)
        try:
            with self.database.begin() as session:
                getattr(self, name)(session, choice)
        except LostLease:
            pass  # rolled back, as a process does

    # Each takes a number to choose with.

    def receive(self, session: Session, choice: int) -> None:
        film = ReceivedFilm(
            study=StudyAttributes(study_instance_uid=f"1.2.{choice % 2}"),
            sop_instance_uid=f"1.2.3.{secrets.randbelow(10**12)}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
            series_instance_uid="1.2.3.1",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            digest=secrets.token_hex(32),
            size=100,
            path=f"films/{secrets.token_hex(8)}.dcm",
            sender="demo",
            calling_ae_title="MODALITY",
        )
        intake.record(session, film, now=self.now, quiet=timedelta(0))

    def claim(self, session: Session, choice: int) -> None:
        kind = list(JobKind)[choice % 3]
        destination = DESTINATIONS[choice % 2] if kind is JobKind.DELIVER else ""
        job = queue.claim(session, kind, owner="test", now=self.now, destination=destination)
        if job:
            self.held.append(job)

    def end(self, session: Session, choice: int) -> None:
        if not self.held:
            return
        job = self.held.pop(choice % len(self.held))
        if session.get(Job, job.id) is None:
            return  # went with its study
        endings: tuple[Callable[[], Any], ...] = (
            lambda: queue.finish(session, job, now=self.now),
            lambda: queue.fail(session, job, error="x", now=self.now),
            lambda: queue.strike(session, job, run_after=self.now, error="x", now=self.now),
        )
        # What else a job's end means for its film, its study, its parcels.
        (self._analysed, self._concluded, self._delivered)[list(JobKind).index(job.kind)](session, job, choice)
        if job.kind is not JobKind.CONCLUDE or choice % 3 != 1:
            endings[choice % 3]()
        else:
            queue.fail(session, job, error="x", now=self.now)

    def _analysed(self, session: Session, job: ClaimedJob, choice: int) -> None:
        film = session.get_one(Instance, job.instance_id)
        film.state = (InstanceState.ANALYSED, InstanceState.FAILED, InstanceState.QUEUED)[choice % 3]

    def _concluded(self, session: Session, job: ClaimedJob, choice: int) -> None:
        study = session.get_one(Study, job.study_id)
        if choice % 3 == 1:
            study.state = StudyState.FAILED
            return
        study.state, study.decision, study.concluded_at = StudyState.CONCLUDED, Decision.NOT_ANALYSED, self.now
        study.revision += 1
        publish(session, study, self.now)

    def _delivered(self, session: Session, job: ClaimedJob, choice: int) -> None:
        if deliveries.is_superseded(session, job):
            deliveries.supersede(session, job)
            return
        parcels = deliveries.parcels(session, job.study_id, job.revision or 0, job.destination)
        for parcel, what in zip(parcels, itertools.cycle((choice // 3, choice // 5)), strict=False):
            self._send(session, parcel, what % 4)
        if choice % 3 == 1:
            deliveries.fail(session, job, error="x")

    def _send(self, session: Session, parcel: Parcel, what: int) -> None:
        if what == 0:
            deliveries.set_sent(session, parcel.delivery_id, status=0, now=self.now)
        elif what == 1:
            deliveries.set_refused(session, parcel.delivery_id, status=0xA700, error="x")
        elif what == 2:
            deliveries.set_not_chosen(session, [parcel.delivery_id])
        else:
            deliveries.set_commitment_requested(session, [parcel.delivery_id], "2.25.1", now=self.now)

    def commit(self, session: Session, choice: int) -> None:
        uids = frozenset(session.scalars(select(Result.sop_instance_uid)))
        failed = uids if choice % 2 else frozenset()
        report = CommitmentReport("2.25.1", uids - failed, failed)
        deliveries.record_commitment(session, report, now=self.now)

    def resend(self, session: Session, choice: int) -> None:
        for study in session.scalars(select(Study).where(Study.id % 2 == choice % 2)):
            deliveries.resend(session, study, list(DESTINATIONS), actor="ann", now=self.now)

    def retry(self, session: Session, choice: int) -> None:
        found = operations.failures(session)
        if found:
            operations.retry(session, found[choice % len(found)].key, actor="ann", now=self.now)

    def retry_study(self, session: Session, choice: int) -> None:
        for study in session.scalars(select(Study).where(Study.id % 2 == choice % 2)):
            operations.retry_study(session, study, DESTINATIONS, actor="ann", now=self.now)

    def cancel(self, session: Session, choice: int) -> None:
        open_jobs = select(Job.id).where(Job.state.in_([JobState.QUEUED, JobState.RUNNING])).order_by(Job.id)
        found = session.scalars(open_jobs).all()
        operations.cancel(session, found[choice % 4 :: 4], actor="ann", now=self.now)

    def undo(self, session: Session, choice: int) -> None:
        found = list(session.scalars(select(operations.Cancellation.job_id)))
        operations.undo_cancel(session, found, actor="ann", now=self.now - timedelta(minutes=choice % 3))

    def die(self, session: Session, choice: int) -> None:
        self.now += HOUR
        queue.take_exhausted(session, now=self.now)

    def remove(self, session: Session, choice: int) -> None:
        if choice % 4 == 0:
            for study in session.scalars(select(Study).limit(1)):
                session.delete(study)
        for result in session.scalars(select(Result).where(Result.id % 5 == choice % 5)):
            session.delete(result)


def publish(session: Session, study: Study, now: datetime) -> None:
    """A revision's results and its outbox."""
    for position, kind in enumerate(ResultKind):
        uid = f"2.25.{secrets.randbelow(10**12)}"
        result = Result(
            study_id=study.id,
            revision=study.revision,
            kind=kind,
            sop_class_uid="1.2",
            sop_instance_uid=uid,
            series_instance_uid="1.2.3",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            position=position,
            path=f"results/{uid}.dcm",
            digest="0" * 64,
            decision=Decision.NOT_ANALYSED,
            created_at=now,
        )
        session.add(result)
        session.flush()
        session.add_all([Delivery(result_id=result.id, destination=name, created_at=now) for name in DESTINATIONS])
    for name in DESTINATIONS:
        queue.add(
            session, JobKind.DELIVER, study_id=study.id, destination=name, revision=study.revision, now=now
        )  # fmt: skip


RARE = ("receive", "commit", "resend", "retry", "retry_study", "cancel", "undo", "die", "remove")
STEPS = st.lists(
    st.tuples(st.sampled_from((*RARE, *("claim", "end") * 4)), st.integers(0, 59)),
    min_size=10,
    max_size=40,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_it_agrees_with_the_work_after_any_sequence(database: Database, steps: list[tuple[str, int]]) -> None:
    node = Node(database)
    node.act("receive", 0)
    for name, choice in steps:
        node.act(name, choice)
        check(database)


def concluded(database: Database) -> list[Parcel]:
    """A study whose results wait for two destinations."""
    node = Node(database)
    node.act("receive", 0)
    with database.begin() as session:
        study = session.scalars(select(Study)).one()
        study.state, study.revision = StudyState.CONCLUDED, 1
        publish(session, study, NOW)
    with database.read() as session:
        number = session.scalars(select(Study.id)).one()
        return [parcel for name in DESTINATIONS for parcel in deliveries.parcels(session, number, 1, name)]


def outstanding(database: Database) -> Outstanding | None:
    with database.read() as session:
        return session.scalars(select(Study.outstanding)).one()


def test_it_goes_from_waiting_to_failed_and_to_nothing(database: Database) -> None:
    parcels = concluded(database)
    seen = [outstanding(database)]
    with database.begin() as session:
        for parcel in parcels[1:]:
            deliveries.set_sent(session, parcel.delivery_id, status=0, now=NOW)
        for _ in range(deliveries.MAXIMUM_REFUSALS):
            deliveries.set_refused(session, parcels[0].delivery_id, status=0xA700, error="x")
    seen.append(outstanding(database))
    with database.begin() as session:
        deliveries.set_not_chosen(session, [parcels[0].delivery_id])
    seen.append(outstanding(database))
    assert seen == [Outstanding.WAITING, Outstanding.FAILED, None]


def test_two_ends_at_once_leave_nothing_outstanding(database: Database) -> None:
    parcels = [parcel.delivery_id for parcel in concluded(database)]

    def second() -> None:
        with database.begin() as session:
            deliveries.set_not_chosen(session, parcels[2:])

    other = threading.Thread(target=second)
    with database.begin() as session:
        deliveries.set_not_chosen(session, parcels[:2])
        other.start()
        if not database.is_sqlite:
            _await_waiting(database)
    other.join(30)
    assert not other.is_alive()
    assert outstanding(database) is None


def _await_waiting(database: Database) -> None:
    """Until the other transaction waits for a lock; PostgreSQL tells."""
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()")
    with database.read() as session:
        while not session.execute(waits).scalar_one():
            assert datetime.now(UTC) < deadline
            session.execute(select(func.pg_stat_clear_snapshot()))
