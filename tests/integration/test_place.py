"""The policy at work: what a concluded study's place is, and what goes to the PACS because of it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import func, select, update

from clearfilm.keys import installation_key
from clearfilm.policy.blind import KEY_FILE, in_share
from clearfilm.policy.rules import Level
from clearfilm.policy.stages import Signature, Stage
from clearfilm.triage import Decision
from db import accounts, placements, policies, queue, reports, schema, verdicts
from db.accounts import Role
from db.models import Audit, Delivery, DeliveryState, JobKind, Report, ReportSource, ReportStatus, Result, Study
from db.placements import Placed
from db.policy_tables import Device
from db.reports import ReceivedReport
from db.session import Database
from tests.integration.test_conclude import Desk, furnished
from worker.conclude import Concluder
from worker.leases import Leases
from worker.policy_clock import PolicyClock


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    database = Database(f"sqlite:///{tmp_path / 'clearfilm.sqlite'}")
    schema.prepare(database)
    yield furnished(database, tmp_path)
    database.close()


@pytest.fixture
def any_desk(database: Database, tmp_path: Path) -> Desk:
    """On SQLite, and on PostgreSQL."""
    return furnished(database, tmp_path)


def configure(desk: Desk, **policy: Any) -> None:
    changed = desk.config.policy.model_copy(update=policy)
    desk.config = desk.config.model_copy(update={"policy": changed})


def placed(desk: Desk) -> Placed:
    with desk.database.read() as session:
        found = placements.current(session, desk.study().id)
    assert found
    return found


def rules(desk: Desk) -> list[str]:
    return [reason.rule for reason in placed(desk).placement.reasons]


def priority(desk: Desk, revision: int = 1) -> str:
    """Code of the Priority item of the report."""
    evaluations = desk.reports(revision)[0].ContentSequence[-1].ContentSequence
    (item,) = [one for one in evaluations if one.ConceptNameCodeSequence[0].CodeValue == "260870009"]
    return str(item.ConceptCodeSequence[0].CodeValue)


def number_of(desk: Desk, table: type) -> int:
    with desk.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def step(desk: Desk, stage: Stage, user: str) -> None:
    with desk.database.begin() as session:
        signature = Signature(user, "test", desk.database.now(session))
        policies.request_step(session, desk.config.policy, stage, signature)


def report(desk: Desk) -> None:
    with desk.database.begin() as session:
        received = ReceivedReport(ReportSource.HL7, ReportStatus.FINAL, "", "clear", study_instance_uid=desk.study_uid)
        reports.record(session, received, now=desk.database.now(session))


LOW, NORMAL = "1251527002", "394848005"


def test_a_clear_study_is_tagged_and_its_placement_tells_what_decided(any_desk: Desk) -> None:
    desk = any_desk
    desk.read(desk.receive(), 0.1)
    desk.conclude()
    found = placed(desk)
    assert (found.placement.level, found.placement.tagged, found.placement.shown) == (Level.USUAL, True, True)
    assert rules(desk) == ["clear", "stage-supervised"]
    assert (found.revision, found.operating_point) == (1, 0.3)
    assert found.placement.policy_version == desk.config.policy.version
    with desk.database.read() as session:
        assert found.bundle_digest
        assert policies.in_force(session, desk.config.policy).standing.stage is Stage.SUPERVISED
    assert priority(desk) == LOW
    assert number_of(desk, Delivery) == 8


@pytest.mark.parametrize(
    ("attributes", "rule"),
    [
        ({"order": "STAT"}, "ordered-urgent"),
        ({"order": "tonight"}, "ordered-unknown"),
        ({"CurrentPatientLocation": "ICU 2"}, "guarded-location"),
        ({"SpecificCharacterSet": "GB18030", "AdmittingDiagnosesDescription": "咯血待查"}, "red-flag"),
        ({"ReasonForTheRequestedProcedure": "post-op day 1"}, "red-flag"),
        ({"PatientAge": None, "PatientBirthDate": None}, "age-unknown"),
        ({"sender": "x-ray room 2"}, "new-device"),
    ],
)
def test_a_guarded_study_keeps_its_place_and_its_answer(desk: Desk, attributes: dict[str, Any], rule: str) -> None:
    desk.read(desk.receive(**attributes), 0.1)
    assert desk.conclude().decision is Decision.NO_SIGNIFICANT_FINDING
    found = placed(desk).placement
    assert rules(desk) == [rule, "stage-supervised"]
    assert not found.tagged
    assert found.level is (Level.PRIORITY if rule == "ordered-urgent" else Level.USUAL)
    assert priority(desk) == NORMAL
    assert number_of(desk, Delivery) == 8


@pytest.mark.parametrize("stage", [Stage.OFF, Stage.SHADOW])
@pytest.mark.parametrize("score", [0.1, 0.9])
def test_while_nobody_may_see_it_nothing_is_sent_and_everything_kept(desk: Desk, stage: Stage, score: float) -> None:
    configure(desk, stage=stage.value)
    desk.read(desk.receive(), score)
    desk.conclude()
    assert (number_of(desk, Result), number_of(desk, Delivery)) == (4, 0)
    found = placed(desk).placement
    assert (found.withheld, found.shown) == (True, False)
    assert found.tagged is (stage is Stage.SHADOW and score < 0.3)


def test_what_the_pacs_was_told_is_corrected_in_every_stage(any_desk: Desk) -> None:
    desk = any_desk
    desk.read(desk.receive(), 0.1)
    desk.conclude()
    with desk.database.begin() as session:
        for delivery in session.scalars(select(Delivery)):
            delivery.state = DeliveryState.SENT
    step(desk, Stage.OFF, "Ann")
    desk.read(desk.receive(), 0.9)
    desk.conclude(revision=2)
    assert placed(desk).placement.withheld
    assert {one.SeriesDescription for one in desk.reports(2)} == {Decision.SIGNIFICANT_FINDING.series_description}
    assert "PredecessorDocumentsSequence" in desk.reports(2)[0]
    with desk.database.read() as session:
        waiting = session.scalars(select(Delivery).where(Delivery.state == DeliveryState.WAITING)).all()
    assert waiting


def test_an_active_policy_lowers_until_the_longest_wait(desk: Desk) -> None:
    step(desk, Stage.ACTIVE, "Ann")
    step(desk, Stage.ACTIVE, "Bo")
    desk.read(desk.receive(), 0.1)
    study = desk.conclude()
    found = placed(desk).placement
    assert (found.level, found.returns_at) == (Level.LATER, study.first_received_at + timedelta(minutes=240))
    assert priority(desk) == LOW


def test_a_device_is_released_by_two_users(any_desk: Desk) -> None:
    desk = any_desk
    desk.read(desk.receive(sender="room 2", DeviceSerialNumber="77"), 0.1)
    desk.conclude()
    assert placed(desk).placement.reasons[0].words == "not released yet: Acme XR 1 77 at room 2"
    for user in ("Ann", "ann", "Bo"):
        assert rules(desk)[0] == "new-device"
        with desk.database.begin() as session:
            (device,) = policies.devices(session)
            policies.release(session, device.id, Signature(user, "compared", desk.database.now(session)))
    desk.read(desk.receive(sender="room 2", DeviceSerialNumber="77"), 0.1)
    desk.conclude(revision=2)
    assert rules(desk) == ["clear", "stage-supervised"]
    assert number_of(desk, Device) == 1


def conclude_blind(desk: Desk, folder: Path) -> None:
    """A clear study, drawn into the blind share of a site whose reports come in."""
    configure(desk, blind_share=0.5)
    key = installation_key(folder / KEY_FILE)
    desk.study_uid = next(uid for uid in iter(generate_uid, "") if in_share(uid, key, 0.5))
    with desk.database.begin() as session:
        other = ReceivedReport(ReportSource.HL7, ReportStatus.FINAL, "", "clear", accession_number="other")
        reports.record(session, other, now=desk.database.now(session))
    desk.read(desk.receive(), 0.1)
    desk.conclude()


def test_the_blind_share_is_sent_after_its_report(any_desk: Desk, tmp_path: Path) -> None:
    desk = any_desk
    conclude_blind(desk, tmp_path)
    found = placed(desk).placement
    assert (found.level, found.tagged, found.blind, found.shown) == (Level.USUAL, True, True, False)
    assert priority(desk) == NORMAL
    clock = PolicyClock(desk.config, desk.database)
    clock.end_blind_share()
    assert number_of(desk, Delivery) == 0
    report(desk)
    clock.end_blind_share()
    assert number_of(desk, Delivery) == 8
    clock.end_blind_share()
    assert number_of(desk, Delivery) == 8


def test_the_blind_share_is_shown_and_sent_after_its_longest_time_without_a_report(
    any_desk: Desk, tmp_path: Path
) -> None:
    desk = any_desk
    conclude_blind(desk, tmp_path)
    clock = PolicyClock(desk.config, desk.database)
    for days, told in ((6, False), (8, True)):
        with desk.database.begin() as session:
            received = desk.database.now(session) - timedelta(days=days)
            session.execute(update(Study).values(first_received_at=received))
        clock.end_blind_share()
        assert (number_of(desk, Delivery) == 8) is told
        found = placed(desk).placement
        assert (found.withheld, found.blind, found.shown, found.level) == (not told, True, False, Level.USUAL)
    assert rules(desk)[-1] == "blind-over"
    with desk.database.read() as session:
        events = session.scalars(select(Audit.event)).all()
    assert events.count("blind study shown after its longest time") == 1
    desk.read(desk.receive(), 0.1)
    desk.conclude(revision=2)
    found = placed(desk).placement
    assert (found.withheld, found.blind, found.shown) == (False, False, True), "an answer is not hidden again"


def test_nobody_is_blind_where_nothing_is_measured(desk: Desk) -> None:
    configure(desk, blind_share=1.0)
    desk.read(desk.receive(), 0.1)
    desk.conclude()
    assert not placed(desk).placement.blind


@pytest.mark.parametrize(("number", "days", "blind"), [(9, 0, False), (10, 0, True), (10, 31, False)])
def test_verdicts_measure_where_no_reports_come_in(desk: Desk, number: int, days: int, blind: bool) -> None:
    configure(desk, blind_share=1.0)
    desk.read(desk.receive(), 0.1)
    desk.conclude()
    with desk.database.begin() as session:
        now = desk.database.now(session)
        study, reader = (
            session.scalars(select(Study)).one(),
            accounts.add_user(session, "roe", Role.RADIOLOGIST, None, now=now),
        )
        session.flush()
        for token in range(number):
            at = now - timedelta(days=days)
            verdicts.give(session, study, revision=1, user_id=reader.id, agrees=True, token=str(token), now=at)
    desk.read(desk.receive(), 0.1)
    desk.conclude(revision=2)
    assert placed(desk).placement.blind is blind


def test_an_earlier_report_with_a_finding_guards(any_desk: Desk) -> None:
    desk = any_desk
    with desk.database.begin() as session:
        now = desk.database.now(session)
        earlier = ReceivedReport(
            ReportSource.CSV, ReportStatus.FINAL, "", "nodule", accession_number="1", patient_id="P-0001"
        )
        reports.record(session, earlier, now=now)
        number = session.scalars(select(Report.id)).one()
        reports.set_label(session, number, label="finding", rule="r", span="", tags=(), lexicon_version="1")
    desk.read(desk.receive(), 0.1)
    desk.conclude()
    assert rules(desk)[0] == "prior-report"


def test_an_order_of_unknown_urgency_guards_by_whichever_film_it_comes(desk: Desk) -> None:
    desk.read(desk.receive(), 0.1)
    desk.conclude()
    assert placed(desk).placement.tagged
    desk.read(desk.receive(order="tonight", RequestedProcedurePriority="tonight"), 0.1)
    desk.conclude(revision=2)
    assert rules(desk)[0] == "ordered-unknown"


def activate(desk: Desk) -> None:
    for user in ("Ann", "Bo"):
        step(desk, Stage.ACTIVE, user)


def test_an_earlier_report_that_comes_later_puts_the_study_back_and_tells_the_pacs(any_desk: Desk) -> None:
    desk = any_desk
    activate(desk)
    desk.read(desk.receive(), 0.1)
    desk.conclude()
    clock = PolicyClock(desk.config, desk.database)
    with desk.database.begin() as session:
        now = desk.database.now(session)
        for delivery in session.scalars(select(Delivery)):
            delivery.state = DeliveryState.SENT
        for number, label in (("1", "no_finding"), ("2", "finding")):
            earlier = ReceivedReport(
                ReportSource.HL7, ReportStatus.FINAL, "", number, accession_number=number, patient_id="P-0001"
            )
            reports.record(session, earlier, now=now)
            report_id = session.scalars(select(Report.id).where(Report.accession_number == number)).one()
            reports.set_label(session, report_id, label=label, rule="r", span="", tags=(), lexicon_version="1")
            if label == "no_finding":
                assert policies.guard_by_reports(session, now=now) == []
    clock.guard_by_reports()
    clock.guard_by_reports()
    found = placed(desk).placement
    assert (found.level, found.shown, found.reasons[-1].rule) == (Level.USUAL, False, "prior-report")
    assert desk.study().lowered_until is None
    desk.conclude(revision=2)
    assert rules(desk)[0] == "prior-report"
    assert priority(desk, 2) == NORMAL
    assert "PredecessorDocumentsSequence" in desk.reports(2)[0]


def test_withdrawing_a_release_puts_back_what_the_device_sent(any_desk: Desk) -> None:
    desk = any_desk
    activate(desk)
    configure(desk, released_senders=())
    desk.read(desk.receive(sender="room 2", DeviceSerialNumber="77"), 0.1)
    desk.conclude()
    with desk.database.begin() as session:
        (device,) = policies.devices(session)
        for user in ("Ann", "Bo"):
            policies.release(session, device.id, Signature(user, "compared", desk.database.now(session)))
    desk.read(desk.receive(sender="room 2", DeviceSerialNumber="77"), 0.1)
    desk.conclude(revision=2)
    assert placed(desk).placement.level is Level.LATER
    with desk.database.begin() as session:
        policies.withdraw_release(session, 1, Signature("Cy", "exchanged", desk.database.now(session)))
    assert placed(desk).placement.level is Level.USUAL
    assert placed(desk).placement.reasons[-1].subject == "Acme XR 1 77 at room 2"
    desk.conclude(revision=3)
    assert rules(desk)[0] == "new-device"


def test_a_step_in_the_meantime_makes_the_ruling_void(desk: Desk) -> None:
    desk.read(desk.receive(), 0.1)
    with Leases(desk.database) as leases:
        concluder = Concluder(desk.config, desk.database, desk.store, leases)
        with desk.database.begin() as session:
            job = queue.claim(session, JobKind.CONCLUDE, owner="test", now=desk.database.now(session))
        assert job
        gathered = concluder._gather(job)
        assert gathered
        step(desk, Stage.SHADOW, "Ann")
        assert concluder._publish(job, gathered, []) == "the policy has changed"
    assert desk.study().revision == 0
