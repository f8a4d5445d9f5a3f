"""How bundles become active and go back, on SQLite and on a real PostgreSQL."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import func, inspect, select, text

from clearfilm.errors import BundleError, PromotionError, UsageError
from clearfilm.model_settings import Promotion
from clearfilm.triage import Decision
from db import audit, promotion, registry, schema, training_runs
from db.governance import RunOutcome, Signature, TrainingRun
from db.models import (
    Analysis,
    Audit,
    Instance,
    InstanceState,
    Job,
    JobKind,
    ModelBundle,
    ModelState,
    Reading,
    Report,
    ReportSource,
    ReportStatus,
    Result,
    ResultKind,
    Study,
    StudyState,
)
from db.promotion import Ballot, Switch
from db.session import Database
from tests.report_factories import report

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIRST, SECOND, THIRD = "a" * 64, "b" * 64, "c" * 64
WAIVED = dict.fromkeys(("shadow-days", "shadow-studies", "shadow-abnormal", "shadow-share"), "tested elsewhere")
# In the tables of schema 0002.
EARLIER_ROWS = (
    f"INSERT INTO models (id, digest, name, version, path, state, added_at, activated_at) "
    f"VALUES (1, '{FIRST}', 'm', '1', '/m', 'active', '2026-01-01', '2026-01-01 00:00:00')",
    "INSERT INTO studies (id, study_instance_uid, priority, state, revision, first_received_at, last_received_at) "
    "VALUES (1, '1.2', 0, 'open', 0, '2026-01-01', '2026-01-01')",
    "INSERT INTO instances (id, study_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, digest, size, path, "
    "sender, calling_ae_title, received_at, conflict, state) "
    "VALUES (1, 1, '1.3', '1.4', '1.5', 'd', 1, 'p', 's', 'a', '2026-01-01', false, 'analysed')",
    "INSERT INTO analyses (id, instance_id, model_id, score, logit, above, map_path, preprocessing_id, device, facts, "
    "created_at) VALUES (1, 1, 1, 0.5, 0.0, true, 'm', 'p', 'cpu', '{}', '2026-01-01')",
)


@dataclass
class Office:
    """A database with an active bundle and one that wants to be."""

    database: Database
    clock: datetime = NOW

    def now(self) -> datetime:
        self.clock += timedelta(seconds=1)
        return self.clock

    def add(self, digest: str, against: str | None = FIRST, **changes: object) -> None:
        with self.database.begin() as session:
            row = registry.register(
                session,
                digest=digest,
                name="Test model",
                version=digest[0],
                path=f"/models/{digest[0]}",
                operating_point={"threshold": 0.3},
                now=self.now(),
            )
            self.evaluate(digest, against, row=row, **changes)

    def evaluate(
        self, digest: str, against: str | None, *, row: ModelBundle, mark: str = "1", **changes: object
    ) -> None:
        row.evaluation, row.evaluation_digest = report(digest, against, **changes), (digest[0] + mark) * 32

    def sign(self, user: str, digest: str = SECOND, **changes: object) -> tuple[Ballot, Switch | None]:
        with self.database.begin() as session:
            return promotion.sign(
                session,
                registry.find(session, digest),
                **{
                    "fault": None,
                    "limits": Promotion(),
                    "user": user,
                    "reason": "better",
                    "waivers": WAIVED,
                    "system_user": "root",
                    "now": self.now(),
                    **changes,
                },  # type: ignore[arg-type]
            )

    def promote(self, digest: str, *, again: bool = False) -> None:
        with self.database.begin() as session:
            if again:
                registry.begin_shadow(session, registry.find(session, digest), actor="A", now=self.now())
            present = registry.active(session)
            row = registry.find(session, digest)
            self.evaluate(digest, present.digest if present else None, row=row, mark="2")
        self.sign("A", digest)
        assert self.sign("B", digest)[1]

    def roll_back(self, digest: str | None = None) -> Switch:
        with self.database.begin() as session:
            return promotion.roll_back(session, digest, user="A", reason="misses", system_user="root", now=self.now())

    def active(self) -> str | None:
        with self.database.read() as session:
            row = registry.active(session)
            return row.digest if row else None

    def state(self, digest: str) -> ModelState:
        with self.database.read() as session:
            return registry.find(session, digest).state


@pytest.fixture
def office(database: Database) -> Office:
    office = Office(database)
    office.add(FIRST, None)
    office.add(SECOND)
    with database.begin() as session:
        registry.start(session, FIRST, actor="worker", now=office.now())
    return office


def test_second_user_activates_and_everything_is_kept(office: Office) -> None:
    ballot, switch = office.sign("Anna")
    assert (switch, office.active()) == (None, FIRST)
    assert not ballot.blocking
    ballot, switch = office.sign("Bo")
    assert switch is not None
    assert switch.gone is not None
    assert (switch.chosen.digest, switch.gone.digest) == (SECOND, FIRST)
    assert (office.active(), office.state(FIRST)) == (SECOND, ModelState.RETIRED)
    with office.database.read() as session:
        signatures = session.scalars(select(Signature).order_by(Signature.id)).all()
        assert [(row.user, row.reason, row.waivers) for row in signatures] == [
            ("Anna", "better", WAIVED),
            ("Bo", "better", WAIVED),
        ]
        row = registry.find(session, SECOND)
        assert row.gates is not None
        assert row.gates["fingerprint"] == ballot.fingerprint == signatures[0].gates_digest
        assert session.scalars(select(Audit.event).order_by(Audit.id)).all() == [
            "model activated",
            "model promotion signed",
            "model promotion signed",
            "model activated",
        ]
        assert audit.first_broken(session) is None


def test_one_user_cannot_sign_twice(office: Office) -> None:
    office.sign("Anna")
    for again in ("Anna", "anna", " ANNA ", "Ａnna"):
        with pytest.raises(PromotionError, match="another user"):
            office.sign(again)
    assert office.active() == FIRST


def withdraw(office: Office, user: str) -> list[str]:
    with office.database.begin() as session:
        row = registry.find(session, SECOND)
        return promotion.withdraw(
            session, row, user=user, reason="too early", system_user="root", now=office.now()
        )  # fmt: skip


@pytest.mark.parametrize("user", ["Anna", "Cy"])
def test_first_signature_is_withdrawn_by_whoever_asks(office: Office, user: str) -> None:
    office.sign("Anna")
    assert withdraw(office, user) == ["Anna"]
    ballot, switch = office.sign("Bo")
    assert ([signature.user for signature in ballot.signatures], switch) == (["Bo"], None)
    with office.database.read() as session:
        gone = session.scalars(select(Signature).order_by(Signature.id)).first()
        assert gone is not None
        assert (gone.withdrawn_by, gone.withdrawn_reason) == (user, "too early")
        record = session.scalars(select(Audit).where(Audit.event == "model promotion withdrawn")).one()
        assert (record.actor, record.detail["signed_by"], record.detail["reason"]) == (user, ["Anna"], "too early")
        assert audit.first_broken(session) is None
    assert office.sign("Anna")[1] is not None


def test_void_signature_that_was_withdrawn_does_not_come_back_with_its_gates(office: Office) -> None:
    office.sign("Anna")
    for mark, last in (("9", False), ("1", True)):
        with office.database.begin() as session:
            office.evaluate(SECOND, FIRST, row=registry.find(session, SECOND), mark=mark)
        if not last:
            withdraw(office, "Cy")
    assert [signature.user for signature in office.sign("Bo")[0].signatures] == ["Bo"]


def test_nothing_to_withdraw_is_said(office: Office) -> None:
    with pytest.raises(PromotionError, match="no signature"):
        withdraw(office, "Anna")
    office.promote(SECOND)
    with pytest.raises(PromotionError, match="no signature"):
        withdraw(office, "Anna")


def test_changed_evaluation_makes_earlier_signatures_void(office: Office) -> None:
    office.sign("Anna")
    with office.database.begin() as session:
        office.evaluate(SECOND, FIRST, row=registry.find(session, SECOND), mark="9")
    ballot, switch = office.sign("Bo")
    assert [signature.user for signature in ballot.signatures] == ["Bo"]
    assert (switch, office.active()) == (None, FIRST)
    assert office.sign("Anna")[1] is not None


def test_failed_gate_blocks_until_it_is_waived_and_the_gates_are_kept(office: Office) -> None:
    ballot, switch = office.sign("Anna", waivers={})
    assert [gate.name for gate in ballot.blocking] == list(WAIVED)
    assert switch is None
    with office.database.read() as session:
        assert session.scalars(select(Signature)).all() == []
        gates = registry.find(session, SECOND).gates
        assert gates is not None
        assert [gate["name"] for gate in gates["gates"] if not gate["passed"]] == list(WAIVED)
        assert "model promotion blocked" in session.scalars(select(Audit.event)).all()
    office.sign("Anna")
    # The first user's waivers are under the signature that still holds.
    ballot, switch = office.sign("Bo", waivers={})
    assert switch is not None
    assert ballot.waivers == WAIVED


def test_signature_that_makes_no_sense_is_refused(office: Office) -> None:
    refused = [
        ({"waivers": {"nothing": "x"}}, "there is no gate 'nothing'"),
        ({"waivers": {"bundle": "x"}}, "nobody can waive the gate 'bundle'"),
        ({"waivers": {"operating-point": "x"}}, "nobody can waive"),
        ({"waivers": {"evaluation": "x"}}, "nobody can waive"),
        ({"waivers": {"auc": " "}}, "needs a reason"),
        ({"user": "  "}, "--user"),
        ({"user": "x" * 129}, "--user"),
        ({"reason": " "}, "--reason"),
    ]
    for changes, words in refused:
        with pytest.raises(UsageError, match=words):
            office.sign(**{"user": "Anna", **changes})  # type: ignore[arg-type]


def test_altered_bundle_and_missing_evaluation_block_for_good(office: Office) -> None:
    assert [gate.name for gate in office.sign("Anna", fault="altered")[0].blocking] == ["bundle"]
    office.add(THIRD)
    with office.database.begin() as session:
        registry.find(session, THIRD).evaluation = None
    ballot, _ = office.sign("Anna", THIRD)
    assert "evaluation" in [gate.name for gate in ballot.blocking]


def test_active_and_retired_bundles_are_not_promoted(office: Office) -> None:
    office.promote(SECOND)
    with pytest.raises(PromotionError, match="active one already"):
        office.sign("Anna", SECOND)
    with pytest.raises(PromotionError, match="rollback"):
        office.sign("Anna", FIRST)


def test_a_second_first_bundle_is_refused(office: Office) -> None:
    with office.database.begin() as session, pytest.raises(BundleError, match="model promote"):
        registry.start(session, SECOND, actor="worker", now=NOW)


def test_two_promotions_at_once_leave_one_active_bundle(office: Office) -> None:
    office.add(THIRD)
    for digest in (SECOND, THIRD):
        office.sign("Anna", digest)
    gate = threading.Barrier(2)
    switched: list[Switch | None] = []

    def second_signature(digest: str) -> None:
        gate.wait()
        switched.append(office.sign("Bo", digest)[1])

    threads = [threading.Thread(target=second_signature, args=(digest,)) for digest in (SECOND, THIRD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    # The slower one was compared with a bundle that is active no more.
    assert sorted(switch is None for switch in switched) == [False, True]
    with office.database.read() as session:
        active = select(func.count()).select_from(ModelBundle).where(ModelBundle.state == ModelState.ACTIVE)
        assert session.scalar(active) == 1


def test_rollback_goes_one_step_further_back_each_time(office: Office) -> None:
    office.add(THIRD)
    office.promote(SECOND)
    office.promote(THIRD)
    assert office.roll_back().chosen.digest == SECOND
    assert office.roll_back().chosen.digest == FIRST
    with pytest.raises(PromotionError, match="no earlier bundle"):
        office.roll_back()
    assert office.roll_back(THIRD[:8]).chosen.digest == THIRD
    assert office.active() == THIRD


def test_rollback_only_to_what_was_active(office: Office) -> None:
    with pytest.raises(PromotionError, match="never active"):
        office.roll_back(SECOND)
    with pytest.raises(PromotionError, match="is the active one"):
        office.roll_back(FIRST)
    with pytest.raises(BundleError, match="0 bundles"):
        office.roll_back("f" * 64)


@pytest.mark.parametrize("step", [timedelta(0), timedelta(days=-1)])
def test_bundle_that_was_left_needs_new_signatures(office: Office, step: timedelta) -> None:
    office.promote(SECOND)
    office.roll_back()
    office.promote(SECOND, again=True)
    office.roll_back()
    office.clock += step
    with office.database.begin() as session:
        registry.begin_shadow(session, registry.find(session, SECOND), actor="Anna", now=office.now())
    ballot, switch = office.sign("Bo")
    assert switch is None
    assert [signature.user for signature in ballot.signatures] == ["Bo"]


def test_signatures_that_were_used_stay_used_when_the_clock_steps_back(office: Office) -> None:
    office.sign("Anna")
    office.clock -= timedelta(days=1)
    assert office.sign("Bo")[1] is not None  # a day before Anna, by the clock
    office.roll_back()
    with office.database.begin() as session:
        registry.begin_shadow(session, registry.find(session, SECOND), actor="Anna", now=office.now())
    ballot, switch = office.sign("Bo")
    assert switch is None
    assert [signature.user for signature in ballot.signatures] == ["Bo"]


def test_studies_that_a_bundle_decided_are_named_by_their_present_conclusion(office: Office) -> None:
    with office.database.begin() as session:
        first, second = registry.find(session, FIRST), registry.find(session, SECOND)
        for uid, revision, models in (("1.1", 1, [first]), ("1.2", 2, [first, second]), ("1.3", 1, [second])):
            study = add_study(session, uid, Decision.SIGNIFICANT_FINDING, revision=revision)
            for number, model in enumerate(models, 1):
                for position in range(2):
                    session.add(result(study, number, position, model))
        session.flush()
        assert registry.studies_decided_by(session, second) == ["1.2", "1.3"]
        assert registry.count_decided_by(session, second) == 2
        assert registry.studies_decided_by(session, first) == ["1.1"]
        with pytest.raises(PromotionError, match="the active one"):
            promotion.conclude_again(session, first, reported=True, actor="Anna", now=office.now())
        study = session.query(Study).where(Study.study_instance_uid == "1.2").one()
        study.reading = Reading.REPORTED
        for reported, expected in ((False, ["1.3"]), (True, ["1.2", "1.3"])):
            number = promotion.conclude_again(session, second, reported=reported, actor="Anna", now=office.now())
            waiting = session.query(Job).where(Job.kind == JobKind.CONCLUDE).all()
            uids = sorted(session.get_one(Study, job.study_id).study_instance_uid for job in waiting)
            assert (number, uids) == (len(expected), expected)


def test_silent_reading_is_counted_by_study_and_report(office: Office) -> None:
    with office.database.begin() as session:
        row = registry.find(session, SECOND)
        registry.begin_shadow(session, row, actor="Anna", now=NOW)
        # study, decision, sides of its films, label of its report
        plan = [
            ("1", Decision.NO_SIGNIFICANT_FINDING, [False], "no_finding"),
            ("2", Decision.NO_SIGNIFICANT_FINDING, [False, True], "finding"),
            ("3", Decision.SIGNIFICANT_FINDING, [True], None),
            ("4", Decision.SIGNIFICANT_FINDING, [False], "finding"),
            ("5", Decision.NOT_ANALYSED, [False], "indeterminate"),
        ]
        for uid, decision, sides, label in plan:
            study = add_study(session, uid, decision)
            for number, above in enumerate(sides):
                session.add(reading(add_film(session, study, number), row, above=above, at=NOW + timedelta(days=1)))
            if label:
                session.add(radiologist_report(study, label))
        session.flush()
        early = add_film(session, study, 9)
        session.add(reading(early, row, above=True, at=NOW - timedelta(days=1)))
        found = promotion.shadow_statistics(session, row, now=NOW + timedelta(days=7))
        assert found == promotion.ShadowStatistics(
            days=7, studies=5, below=3, reported=3, abnormal=2, missed=1, agreeing=2
        )
        registry.end_shadow(session, row, actor="Anna", now=NOW + timedelta(days=7))
        stopped = promotion.shadow_statistics(session, row, now=NOW + timedelta(days=30))
        assert stopped is not None
        assert stopped.days == 1


def test_run_whose_process_is_gone_has_died_and_can_go_on(database: Database) -> None:
    facts = {"cohort_digest": "d" * 64, "cohort_folder": "/c", "cohort": {}, "settings": {}, "started_by": "Anna"}
    with database.begin() as session:
        number = training_runs.begin(session, folder="/r", owner="gone", now=NOW, **facts).id  # type: ignore[arg-type]
        training_runs.begin(session, folder="/s", owner="here", now=NOW, **facts)  # type: ignore[arg-type]
    with database.begin() as session:
        assert training_runs.note_dead(session, lambda owner: owner == "gone", now=NOW) == ["/r"]
    with database.begin() as session:
        assert session.get_one(TrainingRun, number).outcome is RunOutcome.DIED
        resumed = training_runs.begin(session, folder="/r", owner="here", now=NOW, **facts)  # type: ignore[arg-type]
        assert resumed.id == number
        training_runs.end(session, number, RunOutcome.FINISHED, now=NOW, bundle_digest=SECOND)
        found = training_runs.of_bundle(session, SECOND)
        assert found is not None
        assert (found.folder, found.outcome, found.detail) == ("/r", RunOutcome.FINISHED, None)


def test_database_of_an_earlier_version_keeps_its_rows(url: str) -> None:
    database = Database(url)
    if database.is_sqlite:
        Path(str(database.url.database)).parent.mkdir(exist_ok=True)
    with database.begin() as session:
        settings = AlembicConfig()
        settings.set_main_option("script_location", str(schema._MIGRATIONS))
        settings.attributes["connection"] = session.connection()
        command.upgrade(settings, "0002")
        for statement in EARLIER_ROWS:
            session.execute(text(statement))
    schema.prepare(database)
    with database.read() as session:
        analysis = session.scalars(select(Analysis)).one()
        assert (analysis.map_path, analysis.shadow) == ("m", False)
        first = registry.active(session)
        assert first is not None
        assert [entry.rollback for entry in registry.activations(session, first)] == [False]
        columns = inspect(session.connection()).get_columns("analyses")
        assert {column["name"]: column["nullable"] for column in columns}["map_path"] is True
        ondelete = inspect(session.connection()).get_foreign_keys("analyses")
        assert "CASCADE" in {key["options"].get("ondelete") for key in ondelete}
    database.close()


def add_study(session: object, uid: str, decision: Decision, *, revision: int = 1) -> Study:
    study = Study(
        study_instance_uid=uid,
        state=StudyState.CONCLUDED,
        decision=decision,
        revision=revision,
        first_received_at=NOW,
        last_received_at=NOW,
    )
    session.add(study)  # type: ignore[attr-defined]
    session.flush()  # type: ignore[attr-defined]
    return study


def add_film(session: object, study: Study, number: int) -> Instance:
    film = Instance(
        study_id=study.id,
        sop_instance_uid=f"{study.study_instance_uid}.{number}",
        sop_class_uid="1.2",
        transfer_syntax_uid="1.2",
        digest="d" * 64,
        size=1,
        path=f"films/{study.study_instance_uid}.{number}",
        sender="demo",
        calling_ae_title="X",
        received_at=NOW,
        state=InstanceState.ANALYSED,
    )
    session.add(film)  # type: ignore[attr-defined]
    session.flush()  # type: ignore[attr-defined]
    return film


def reading(film: Instance, model: ModelBundle, *, above: bool, at: datetime) -> Analysis:
    return Analysis(
        instance_id=film.id,
        model_id=model.id,
        score=0.5,
        logit=0.0,
        above=above,
        shadow=True,
        map_path=None,
        preprocessing_id="x",
        device="cpu",
        facts={},
        created_at=at,
    )


def result(study: Study, revision: int, position: int, model: ModelBundle) -> Result:
    name = f"{study.study_instance_uid}.{revision}.{position}"
    return Result(
        study_id=study.id,
        revision=revision,
        kind=ResultKind.REPORT,
        sop_class_uid="1.2",
        sop_instance_uid=name,
        series_instance_uid="1.2",
        transfer_syntax_uid="1.2",
        position=position,
        path=name,
        digest="e" * 64,
        decision=Decision.SIGNIFICANT_FINDING,
        model_id=model.id,
        created_at=NOW,
    )


def radiologist_report(study: Study, label: str) -> Report:
    return Report(
        digest=f"{study.id:064}",
        source=ReportSource.CSV,
        status=ReportStatus.FINAL,
        findings="",
        impression="",
        language="en",
        received_at=NOW,
        study_id=study.id,
        label=label,
    )
