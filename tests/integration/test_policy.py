"""The policy's tables: stages, signatures, placements, the alarm; the same on SQLite and PostgreSQL."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from clearfilm.config import Config
from clearfilm.errors import PolicyError
from clearfilm.policy.rules import Facts, Level, place
from clearfilm.policy.settings import Policy
from clearfilm.policy.stages import Signature, Stage
from clearfilm.triage import Decision
from db import audit, placements, policies, registry
from db.models import Audit, Report, ReportSource, ReportStatus, Study, StudyPlacement, StudyState
from db.policies import DeviceIdentity
from db.session import Database
from worker.policy_clock import PolicyClock

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy()
CLEAR = Facts(Decision.NO_SIGNIFICANT_FINDING, films=1, films_below=1, waiting_since=NOW, age_years=50)


def start_model(database: Database, now: datetime = NOW) -> None:
    with database.begin() as session:
        point = {"threshold": 0.3, "sensitivity": 0.9}
        registry.register(session, digest="a" * 64, name="m", version="1", path="x", operating_point=point, now=now)
        registry.start(session, "a" * 64, actor="test", now=now)


def add_study(database: Database, uid: str, *, stage: Stage, received: datetime = NOW, priority: int = 0) -> int:
    """A concluded clear study, placed by the policy."""
    with database.begin() as session:
        study = Study(
            study_instance_uid=uid,
            patient_id=f"P{uid}",
            state=StudyState.CONCLUDED,
            priority=priority,
            revision=1,
            decision=Decision.NO_SIGNIFICANT_FINDING,
            first_received_at=received,
            last_received_at=received,
        )
        session.add(study)
        session.flush()
        facts = Facts(
            study.decision or Decision.NOT_ANALYSED,
            films=1,
            films_below=1,
            waiting_since=received,
            age_years=50,
            ordered_urgent=priority > 0,
        )
        placement = place(facts, POLICY, stage, now=received)
        placements.record(session, study, placement, registry.active(session), now=received)
        return study.id


def add_reports(database: Database, studies: Sequence[int], label: str | None) -> None:
    with database.begin() as session:
        session.add_all(
            Report(
                digest=f"{study:064d}",
                source=ReportSource.CSV,
                status=ReportStatus.FINAL,
                findings="",
                impression="",
                language="en",
                received_at=NOW,
                study_id=study,
                label=label,
            )
            for study in studies
        )


def sign(database: Database, stage: Stage, user: str, *, now: datetime = NOW) -> Stage:
    with database.begin() as session:
        return policies.request_step(session, POLICY, stage, Signature(user, "because", now)).stage


def test_the_configured_stage_counts_at_the_first_start_only(database: Database) -> None:
    for stage in ("shadow", "supervised"):
        with database.begin() as session:
            found = policies.begin(session, Policy(stage=stage), now=NOW)  # type: ignore[arg-type]
            assert found.standing.stage is Stage.SHADOW
    with database.read() as session:
        assert [row.actor for row in policies.history(session)] == ["configuration"]


def test_two_users_step_up_one_steps_down_and_all_is_in_the_trail(database: Database) -> None:
    start_model(database)
    assert sign(database, Stage.ACTIVE, "Ann") is Stage.SUPERVISED
    assert sign(database, Stage.ACTIVE, "ann") is Stage.SUPERVISED
    assert sign(database, Stage.ACTIVE, "Bo", now=NOW + timedelta(days=1)) is Stage.ACTIVE
    assert sign(database, Stage.SHADOW, "Cy") is Stage.SHADOW
    with database.read() as session:
        last_up = policies.history(session)[-2]
        assert last_up.detail["first_signature"]["user"] == "ann"
        assert last_up.detail["misses"]["target"] == pytest.approx(0.1)
        events = session.scalars(select(Audit.event).where(Audit.event.like("policy%")).order_by(Audit.id)).all()
        assert events == ["policy stage signed"] * 2 + ["policy stage changed"] * 2
        assert audit.first_broken(session) is None


def withdraw(database: Database, stage: Stage, user: str) -> Stage:
    with database.begin() as session:
        return policies.withdraw_step(session, POLICY, stage, Signature(user, "too early", NOW)).stage


@pytest.mark.parametrize("user", ["Ann", "Cy"])
def test_a_proposed_step_is_withdrawn_by_whoever_asks_and_that_is_in_the_trail(database: Database, user: str) -> None:
    sign(database, Stage.ACTIVE, "Ann")
    assert withdraw(database, Stage.ACTIVE, user) is Stage.SUPERVISED
    assert sign(database, Stage.ACTIVE, "Bo") is Stage.SUPERVISED
    with database.read() as session:
        standing = policies.in_force(session, POLICY).standing
        assert standing.proposal is not None
        assert standing.proposal.signature.user == "Bo"
        gone = policies.history(session)[-2]
        assert (gone.actor, gone.reason, gone.proposed) == (user, "too early", None)
        assert gone.detail["withdrawn"] == {
            "stage": "active", "user": "Ann", "reason": "because", "at": NOW.isoformat(),
        }  # fmt: skip
        record = session.scalars(select(Audit).where(Audit.event == "policy stage withdrawn")).one()
        assert (record.actor, record.detail["signed_by"], record.detail["reason"]) == (user, "Ann", "too early")
        assert audit.first_broken(session) is None


def test_a_step_that_was_made_meanwhile_cannot_be_withdrawn(database: Database) -> None:
    sign(database, Stage.ACTIVE, "Ann")
    sign(database, Stage.ACTIVE, "Bo")
    with pytest.raises(PolicyError, match="no step to active waits"):
        withdraw(database, Stage.ACTIVE, "Ann")


def test_a_study_is_later_only_while_all_speaks_for_it_whatever_runs_by_the_clock(database: Database) -> None:
    late = add_study(database, "1", stage=Stage.ACTIVE)
    add_study(database, "2", stage=Stage.SHADOW)
    add_study(database, "3", stage=Stage.ACTIVE, priority=2)

    def later(stage: Stage, minutes: int) -> list[int]:
        moment = NOW + timedelta(minutes=minutes)
        listed = (
            select(Study.id)
            .outerjoin(StudyPlacement, (StudyPlacement.study_id == Study.id) & StudyPlacement.superseded_at.is_(None))
            .where(placements.is_later(stage, now=moment))
        )
        with database.read() as session:
            return list(session.scalars(listed))

    assert later(Stage.ACTIVE, 239) == [late]
    assert later(Stage.ACTIVE, 240) == []
    assert later(Stage.SUPERVISED, 10) == []
    with database.begin() as session:
        session.get_one(Study, late).state = StudyState.OPEN  # a late film that nobody has looked at
    assert later(Stage.ACTIVE, 10) == []


def test_overdue_studies_return_with_the_reason_and_reported_ones_are_left_alone(database: Database) -> None:
    waiting, reported = (add_study(database, uid, stage=Stage.ACTIVE) for uid in ("1", "2"))
    add_reports(database, [reported], "no_finding")
    clock = PolicyClock(Config(), database)
    with database.begin() as session:
        assert placements.return_overdue(session, now=NOW + timedelta(minutes=239)) == []
    clock.return_overdue_studies()
    clock.return_overdue_studies()
    with database.read() as session:
        levels = [one.placement.level for one in placements.history(session, waiting)]
        assert levels == [Level.LATER, Level.USUAL]
        found = placements.current(session, waiting)
        assert found
        assert found.placement.reasons[-1].rule == "maximum-wait"
        assert found.operating_point is None
        assert [one.placement.level for one in placements.history(session, reported)] == [Level.LATER]
        events = session.execute(select(Audit.event, Audit.study_id)).all()
        assert [tuple(event) for event in events] == [("study returned after its longest wait", waiting)]


def test_the_alarm_steps_down_puts_studies_back_and_stands(database: Database) -> None:
    with database.read() as session:
        now = database.now(session)  # the clock has no other
    start_model(database, now)
    sign(database, Stage.ACTIVE, "Ann", now=now)
    sign(database, Stage.ACTIVE, "Bo", now=now)
    studies = [add_study(database, str(number), stage=Stage.ACTIVE, received=now) for number in range(12)]
    clock = PolicyClock(Config(), database)
    add_reports(database, studies[:2], "finding")
    add_reports(database, studies[2:4], "no_finding")
    clock.watch_misses()
    with database.read() as session:
        assert policies.in_force(session, POLICY).standing.stage is Stage.ACTIVE
        assert placements.counts(session, Stage.ACTIVE, now=now) == {
            "placed": 12,
            "tagged": 12,
            "shown": 12,
            "later": 12,
            "blind": 0,
        }
    add_reports(database, studies[4:], "finding")
    clock.watch_misses()
    clock.watch_misses()
    with database.read() as session:
        assert policies.in_force(session, POLICY).standing.stage is Stage.SHADOW
        row = policies.history(session)[-1]
        assert (row.actor, row.detail["misses"]["everything"]["missed"]) == ("schedule", 10)
        assert row.reason.startswith("alarm: 10 of 10 with a finding were tagged")
        later = select(func.count()).where(StudyPlacement.superseded_at.is_(None), StudyPlacement.level == Level.LATER)
        assert session.scalar(later) == 0
        assert len(policies.history(session)) == 4
    with pytest.raises(PolicyError, match="alarm stands"):
        sign(database, Stage.SUPERVISED, "Ann", now=now + timedelta(days=1))


def test_only_reports_of_other_studies_of_the_patient_count_as_earlier(database: Database) -> None:
    first, second = (add_study(database, uid, stage=Stage.SHADOW) for uid in ("1", "2"))
    with database.begin() as session:
        for number in (first, second):
            session.get_one(Study, number).patient_id = "P"
    add_reports(database, [first], "finding")
    add_reports(database, [second], None)
    with database.read() as session:
        assert policies.prior_labels(session, session.get_one(Study, first)) == ("unlabelled",)
        assert policies.prior_labels(session, session.get_one(Study, second)) == ("finding",)


def test_a_device_is_remembered_once_and_its_release_can_be_withdrawn(database: Database) -> None:
    identity = DeviceIdentity("room 2", "Acme", "XR", "7")
    for user in ("Ann", "Bo"):
        with database.begin() as session:
            assert policies.notice_devices(session, [identity, identity], POLICY, now=NOW) == ("Acme XR 7 at room 2",)
            assert policies.notice_devices(session, [DeviceIdentity("demo", "", "", "")], POLICY, now=NOW) == ()
            policies.release(session, policies.devices(session)[0].id, Signature(user, "compared", NOW))
    with database.begin() as session:
        assert policies.notice_devices(session, [identity], POLICY, now=NOW) == ()
        (device,) = policies.devices(session)
        policies.withdraw_release(session, device.id, Signature("Cy", "detector exchanged", NOW))
        assert policies.notice_devices(session, [identity], POLICY, now=NOW) == ("Acme XR 7 at room 2",)
        with pytest.raises(PolicyError, match="no device has the number 99"):
            policies.release(session, 99, Signature("Ann", "x", NOW))


def test_a_deleted_study_takes_its_placements_along(database: Database) -> None:
    number = add_study(database, "1", stage=Stage.ACTIVE)
    with database.begin() as session:
        session.delete(session.get_one(Study, number))
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(StudyPlacement)) == 0
