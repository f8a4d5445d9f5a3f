"""Verdicts of readers, and the corrected results that the worker makes of them."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pydicom
import pytest
from sqlalchemy import select, update

from clearfilm.errors import StaleAnswer
from clearfilm.policy.rules import Placement
from clearfilm.policy.settings import Policy
from clearfilm.policy.stages import Signature, Stage
from clearfilm.triage import Decision
from db import accounts, placements, policies, queue, reports, verdicts
from db.accounts import Role
from db.models import (
    Delivery,
    DeliveryState,
    Job,
    JobKind,
    JobState,
    Reading,
    Report,
    ReportSource,
    ReportStatus,
    Result,
    Study,
    StudyPlacement,
    StudyState,
)
from db.reports import ReceivedReport
from db.session import Database
from db.verdicts import Verdict
from tests.integration.test_conclude import Desk, await_condition, open_desk

FINDING, NO_FINDING = Decision.SIGNIFICANT_FINDING, Decision.NO_SIGNIFICANT_FINDING


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A node with one concluded study, and two readers."""
    for opened in open_desk(tmp_path):
        with opened.database.begin() as session:
            now = opened.database.now(session)
            for name in ("li", "roe"):
                accounts.add_user(session, name, Role.RADIOLOGIST, None, now=now)
        opened.read(opened.receive(), 0.1)
        opened.conclude()
        send_everything(opened)
        yield opened


def send_everything(desk: Desk) -> None:
    """As if the first report of each revision had arrived everywhere."""
    with desk.database.begin() as session:
        session.execute(update(Delivery).values(state=DeliveryState.SENT))
        session.execute(update(Job).where(Job.kind == JobKind.DELIVER).values(state=JobState.DONE))


def report_a_nodule(desk: Desk) -> None:
    with desk.database.begin() as session:
        source, status = ReportSource.HL7, ReportStatus.FINAL
        received = ReceivedReport(source, status, "", "nodule", study_instance_uid=desk.study_uid)
        reports.record(session, received, now=desk.database.now(session))
        number = session.scalars(select(Report.id)).one()
        reports.set_label(session, number, label="finding", rule="r", span="", tags=(), lexicon_version="1")


def say(
    desk: Desk,
    *,
    agrees: bool,
    corrects: bool = False,
    name: str = "li",
    token: str = "t1",
    revision: int | None = None,
    blind: bool = False,
) -> None:
    with desk.database.begin() as session:
        study = session.scalars(select(Study)).one()
        user = accounts.user(session, name)
        assert user is not None
        verdicts.give(
            session,
            study,
            revision=study.revision if revision is None else revision,
            user_id=user.id,
            agrees=agrees,
            token=token,
            blind=blind,
            corrects=corrects,
            now=desk.database.now(session),
        )


def take_back(desk: Desk, name: str = "li") -> bool:
    with desk.database.begin() as session:
        user = accounts.user(session, name)
        assert user is not None
        return verdicts.withdraw(session, session.scalars(select(Study)).one(), user.id, now=desk.database.now(session))


def hurry(desk: Desk) -> None:
    """Let the time for calling a correction off pass."""
    with desk.database.begin() as session:
        now = desk.database.now(session)
        session.execute(update(Job).where(Job.kind == JobKind.CONCLUDE).values(run_after=now))


def waiting_conclusions(desk: Desk) -> list[datetime]:
    with desk.database.read() as session:
        jobs = select(Job.run_after).where(Job.kind == JobKind.CONCLUDE, Job.state == JobState.QUEUED)
        return list(session.scalars(jobs))


def standing(desk: Desk) -> list[tuple[str, bool]]:
    study = desk.study()
    with desk.database.read() as session:
        return [(given.user, given.agrees) for given in verdicts.standing(session, study.id, study.revision)]


def text_of(report: pydicom.Dataset) -> str:
    evaluations = report.ContentSequence[-1].ContentSequence
    return next(str(item.TextValue) for item in evaluations if item.ConceptNameCodeSequence[0].CodeValue == "111412")


def test_the_last_verdict_of_a_reader_counts_and_every_one_is_kept(desk: Desk) -> None:
    say(desk, agrees=True, token="t1")
    say(desk, agrees=False, token="t2")
    say(desk, agrees=True, name="roe", token="t3")
    assert standing(desk) == [("li", False), ("roe", True)]
    assert desk.study().reading is Reading.AGREED
    take_back(desk, "roe")
    assert desk.study().reading is Reading.DISAGREED
    with desk.database.read() as session:
        said = verdicts.history(session, desk.study().id)
    assert [(given.agrees, given.withdrawn_at is None) for given in said] == [
        (True, True),
        (False, True),
        (True, False),
    ]


def test_a_form_that_is_sent_twice_counts_once(desk: Desk) -> None:
    say(desk, agrees=False, corrects=True, token="same")
    first = waiting_conclusions(desk)
    say(desk, agrees=False, corrects=True, token="same")
    assert waiting_conclusions(desk) == first
    with desk.database.read() as session:
        assert len(session.scalars(select(Verdict.id)).all()) == 1


def test_a_verdict_about_an_earlier_answer_is_not_taken(desk: Desk) -> None:
    desk.read(desk.receive(), 0.9)
    desk.conclude(2)
    with pytest.raises(StaleAnswer):
        say(desk, agrees=True, revision=1)
    assert standing(desk) == []


def test_a_study_that_was_not_analysed_has_no_answer_to_agree_with(desk: Desk) -> None:
    desk.give_up(desk.receive(), "lateral view")
    desk.conclude(2)
    with pytest.raises(StaleAnswer, match="not analysed"):
        say(desk, agrees=True)


def test_disagreement_alone_sends_nothing(desk: Desk) -> None:
    say(desk, agrees=False)
    assert waiting_conclusions(desk) == []


def test_corrected_result_is_a_new_revision_that_names_the_one_before(desk: Desk) -> None:
    first = desk.reports(1)[0]
    say(desk, agrees=False, corrects=True)
    hurry(desk)
    study = desk.conclude(2)
    assert (study.decision, study.state) == (FINDING, StudyState.CONCLUDED)
    second = desk.reports(2)[0]
    named = {
        item.ReferencedSOPInstanceUID
        for series in second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert named == {first.SOPInstanceUID}
    assert second.SeriesDescription == "AI CXR triage: SIGNIFICANT FINDING"
    assert "Corrected by a radiologist (li)" in text_of(second)
    assert "AI triage: no significant finding" in text_of(second)
    assert second.VerificationFlag == "UNVERIFIED"
    people = [item.PersonName for item in second.ContentSequence if item.ValueType == "PNAME"]
    assert [str(name) for name in people] == ["li^"]
    with desk.database.read() as session:
        waiting = session.scalars(
            select(Delivery.state).join(Result, Result.id == Delivery.result_id).where(Result.revision == 2)
        ).all()
    assert waiting == [DeliveryState.WAITING] * 8


def test_a_correction_is_made_once(desk: Desk) -> None:
    say(desk, agrees=False, corrects=True)
    hurry(desk)
    desk.conclude(2)
    say(desk, agrees=True, token="t2")
    assert waiting_conclusions(desk) == []
    assert desk.study().revision == 2


def test_a_correction_can_be_called_off_before_it_is_made(desk: Desk) -> None:
    say(desk, agrees=False, corrects=True)
    assert len(waiting_conclusions(desk)) == 1
    assert take_back(desk)
    assert waiting_conclusions(desk) == []
    assert standing(desk) == []
    assert desk.study().reading is Reading.OPENED
    assert not take_back(desk)


def test_a_conclusion_that_was_claimed_before_the_correction_was_called_off_makes_nothing(desk: Desk) -> None:
    say(desk, agrees=False, corrects=True)
    hurry(desk)
    with desk.database.begin() as session:
        now = desk.database.now(session)
        claimed = queue.claim(session, JobKind.CONCLUDE, owner="slow worker", now=now)
        assert claimed is not None
    take_back(desk)
    with desk.database.begin() as session:  # the slow worker's lease has run out, another one takes the job
        session.execute(update(Job).where(Job.id == claimed.id).values(state=JobState.QUEUED, run_after=now))
    with desk.concluding():
        await_condition(lambda: waiting_conclusions(desk) == [])
    assert desk.study().revision == 1


def test_changing_one_s_mind_calls_the_correction_off(desk: Desk) -> None:
    say(desk, agrees=False, corrects=True)
    say(desk, agrees=True, token="t2")
    assert waiting_conclusions(desk) == []


def test_another_reader_s_agreement_does_not_stop_a_correction(desk: Desk) -> None:
    say(desk, agrees=False, corrects=True)
    say(desk, agrees=True, name="roe", token="t2")
    assert len(waiting_conclusions(desk)) == 1


def test_a_corrected_finding_outlives_a_late_film(desk: Desk) -> None:
    say(desk, agrees=False, corrects=True)
    hurry(desk)
    desk.conclude(2)
    desk.read(desk.receive(), 0.1)
    study = desk.conclude(3)
    assert study.decision is FINDING
    assert "Corrected by a radiologist (li)" in text_of(desk.reports(3)[0])


def test_a_late_film_is_judged_anew_after_a_finding_was_denied(desk: Desk) -> None:
    desk.read(desk.receive(), 0.9)
    assert desk.conclude(2).decision is FINDING
    say(desk, agrees=False, corrects=True)
    hurry(desk)
    assert desk.conclude(3).decision is NO_FINDING
    priorities = [
        item.ConceptCodeSequence[0].CodeMeaning
        for item in desk.reports(3)[0].ContentSequence[-1].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Priority"
    ]
    assert priorities == ["Normal priority"]
    desk.read(desk.receive(), 0.1)
    study = desk.conclude(4)
    assert study.decision is FINDING
    assert "Corrected" not in text_of(desk.reports(4)[0])


def test_a_correction_can_be_corrected(desk: Desk) -> None:
    say(desk, agrees=False, corrects=True)
    hurry(desk)
    desk.conclude(2)
    say(desk, agrees=False, corrects=True, name="roe", token="t2")
    hurry(desk)
    study = desk.conclude(3)
    assert study.decision is NO_FINDING
    assert "Corrected" not in text_of(desk.reports(3)[0])


def test_studies_with_a_finding_by_their_readers_are_counted(desk: Desk) -> None:
    def found(*, blind: bool) -> list[int]:
        with desk.database.read() as session:
            return list(session.scalars(verdicts.with_finding(blind=blind)))

    say(desk, agrees=True)
    assert found(blind=False) == []
    say(desk, agrees=False, name="roe", token="t2")
    assert found(blind=False) == [desk.study().id]
    assert found(blind=True) == []
    take_back(desk, "roe")
    assert found(blind=False) == []


def test_disagreement_about_a_tagged_study_is_a_miss_and_takes_the_tag_away(desk: Desk) -> None:
    policy, study_id = Policy(target_miss_rate=0.1), desk.study().id

    def placement() -> Placement:
        with desk.database.read() as session:
            placed = placements.current(session, study_id)
            assert placed is not None
            return placed.placement

    def misses() -> tuple[int, int]:
        with desk.database.read() as session:
            found = policies.assessment(session, policy, now=desk.database.now(session))
            assert found is not None
            return found.everything.findings, found.everything.missed

    before = placement()
    say(desk, agrees=False, corrects=True)
    assert (placement().shown, placement().tagged) == (False, before.tagged)
    assert misses() == (1, int(before.tagged))
    hurry(desk)
    desk.conclude(2)
    assert (placement().shown, placement().tagged) == (False, before.tagged)
    assert misses() == (1, int(before.tagged))


def test_only_verdicts_without_the_answer_count_among_withheld_studies(desk: Desk) -> None:
    policy = Policy(target_miss_rate=0.1)
    with desk.database.begin() as session:
        session.execute(update(StudyPlacement).values(withheld=True, tagged=True))
    say(desk, agrees=False)
    with desk.database.read() as session:
        found = policies.assessment(session, policy, now=desk.database.now(session))
        assert found is not None
        assert (found.unseen.findings, found.everything.findings) == (0, 1)
    with desk.database.begin() as session:
        session.execute(update(Verdict).values(blind=True))
    with desk.database.read() as session:
        found = policies.assessment(session, policy, now=desk.database.now(session))
        assert found is not None
        assert (found.unseen.findings, found.unseen.missed) == (1, 1)


@pytest.mark.parametrize("reported", [False, True])
def test_after_the_blind_share_only_what_was_said_before_counts_as_blind(desk: Desk, reported: bool) -> None:
    policy = Policy(target_miss_rate=0.1)
    with desk.database.begin() as session:
        session.execute(update(StudyPlacement).values(withheld=True, blind=True, tagged=True))
    if not reported:
        say(desk, agrees=False, blind=True)
    with desk.database.begin() as session:
        now = desk.database.now(session)
        assert placements.end_blind(session, received_before=now, now=now) == [desk.study().id]
    if reported:
        report_a_nodule(desk)
    with desk.database.read() as session:
        found = policies.assessment(session, policy, now=desk.database.now(session))
    assert found is not None
    assert found.everything.missed == 1
    assert found.unseen.missed == (0 if reported else 1)


def test_a_verdict_that_is_given_anew_after_the_first_showed_the_answer_is_not_blind(desk: Desk) -> None:
    """Taking it back hides the answer from the page again, not from the reader."""

    def say_blind(name: str, token: str) -> bool:
        say(desk, agrees=False, name=name, token=token, blind=True)
        with desk.database.read() as session:
            return session.scalars(select(Verdict.blind).where(Verdict.token == token)).one()

    assert say_blind("li", "t1")
    assert take_back(desk)
    assert not say_blind("li", "t2")
    assert say_blind("roe", "t3")
    with desk.database.begin() as session:
        signature = Signature("Ann", "test", desk.database.now(session))
        policies.request_step(session, desk.config.policy, Stage.SHADOW, signature)
    assert say_blind("li", "t4")  # where nothing is ever shown


def see(desk: Desk, *, finding: bool, name: str = "li", token: str = "s1") -> None:
    with desk.database.begin() as session:
        user = accounts.user(session, name)
        assert user is not None
        study = session.scalars(select(Study)).one()
        verdicts.see(session, study, user_id=user.id, finding=finding, token=token, now=desk.database.now(session))


def said(desk: Desk) -> list[tuple[str, int, bool, bool, bool]]:
    with desk.database.read() as session:
        rows = verdicts.history(session, desk.study().id)
    return [(row.user, row.revision, row.finding, row.agrees, row.withdrawn_at is None) for row in rows]


@pytest.mark.parametrize("score", [0.1, 0.9])
def test_what_readers_see_before_the_answer_is_kept_and_compared_with_it(desk: Desk, score: float) -> None:
    film = desk.receive()
    see(desk, finding=True)
    see(desk, finding=False, name="roe", token="s2")
    assert (desk.study().reading, desk.study().read_at is None) == (Reading.OPENED, False)
    desk.read(film, score)
    assert desk.conclude(2).decision is (FINDING if score > 0.5 else NO_FINDING)
    agrees = score > 0.5
    assert said(desk) == [("li", 2, True, agrees, True), ("roe", 2, False, not agrees, True)]
    assert desk.study().reading is (Reading.DISAGREED if agrees else Reading.AGREED)


def test_a_film_that_comes_after_a_verdict_makes_it_void(desk: Desk) -> None:
    first = desk.receive()
    see(desk, finding=False)
    second = desk.receive()
    with desk.database.read() as session:
        assert verdicts.present(session, session.scalars(select(Study)).one()) == []
    see(desk, finding=True, name="roe", token="s2")
    desk.read(first, 0.1)
    desk.read(second, 0.1)
    desk.conclude(2)
    assert said(desk) == [("li", 0, False, False, False), ("roe", 2, True, False, True)]


def test_a_verdict_before_the_answer_can_be_taken_back(desk: Desk) -> None:
    film = desk.receive()
    see(desk, finding=True)
    assert take_back(desk)
    assert (desk.study().reading, desk.study().read_at) == (Reading.OPENED, None)
    desk.read(film, 0.1)
    desk.conclude(2)
    assert standing(desk) == []


def test_a_finding_that_was_seen_before_the_answer_takes_the_tag_away(desk: Desk) -> None:
    film = desk.receive()
    see(desk, finding=True)
    desk.read(film, 0.1)
    study = desk.conclude(2)
    with desk.database.read() as session:
        placed = placements.current(session, study.id)
    assert placed is not None
    assert not placed.placement.shown


def test_only_who_was_shown_no_answer_is_blind_to_the_next_one(desk: Desk) -> None:
    """The answer of the first revision was shown to everybody; a withheld one only to who said what they see."""
    desk.receive()
    see(desk, finding=True)
    with desk.database.begin() as session:
        assert not session.scalars(select(Verdict.blind)).one()
        session.execute(update(StudyPlacement).values(withheld=True))
    see(desk, finding=True, token="s2")
    with desk.database.read() as session:
        assert session.scalars(select(Verdict.blind).where(Verdict.token == "s2")).one()


def test_verdict_about_a_withheld_answer_tells_the_list_only_that_it_was_read(desk: Desk) -> None:
    with desk.database.begin() as session:
        session.execute(update(Study).values(withheld=True))
        session.execute(update(StudyPlacement).values(withheld=True, shown=False))
    see(desk, finding=True)
    assert (desk.study().reading, desk.study().read_at is None) == (Reading.OPENED, False)
    see(desk, finding=True, name="roe", token="s2")
    take_back(desk, "roe")
    assert (desk.study().reading, desk.study().read_at is None) == (Reading.OPENED, False)
    take_back(desk)
    assert (desk.study().reading, desk.study().read_at) == (Reading.OPENED, None)


def test_verdicts_hold_on_every_database(database: Database) -> None:
    with database.begin() as session:
        now = database.now(session)
        reader = accounts.add_user(session, "li", Role.RADIOLOGIST, None, now=now)
        study = Study(
            study_instance_uid="1.2.3",
            first_received_at=now,
            last_received_at=now,
            concluded_at=now,
            state=StudyState.CONCLUDED,
            revision=1,
            decision=NO_FINDING,
        )
        session.add(study)
        session.flush()
        verdicts.give(
            session, study, revision=1, user_id=reader.id, agrees=False, token="t", corrects=True, now=now, blind=True
        )
        assert verdicts.is_pending(session, study)
        assert list(session.scalars(verdicts.with_finding(blind=True))) == [study.id]
        assert verdicts.withdraw(session, study, reader.id, now=now)
        assert verdicts.is_called_off(session, study)
        assert list(session.scalars(verdicts.with_finding(blind=False))) == []
        study.state = StudyState.OPEN
        early = verdicts.see(session, study, user_id=reader.id, finding=True, token="e", now=now)
        study.state, study.revision = StudyState.CONCLUDED, 2
        verdicts.settle(session, study, now=now)
        assert (early.revision, early.answer, early.agrees) == (2, NO_FINDING, False)
        other = accounts.add_user(session, "roe", Role.RADIOLOGIST, None, now=now)
        assert verdicts.contradicted(session, [study.id]) == set()
        verdicts.give(session, study, revision=2, user_id=other.id, agrees=True, token="o", now=now)
        assert verdicts.contradicted(session, [study.id]) == {study.id}
