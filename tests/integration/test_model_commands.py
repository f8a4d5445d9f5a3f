"""`clearfilm model …` as administrators call it, also when it is killed half-way."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from clearfilm.crashpoints import PROMOTION
from clearfilm.evaluation import REPORT
from clearfilm.process import process_name
from clearfilm.triage import Decision
from db import registry, schema, training_runs
from db.governance import RunOutcome, TrainingRun
from db.models import (
    Analysis,
    Instance,
    InstanceState,
    ModelBundle,
    ModelState,
    Result,
    ResultKind,
    Study,
    StudyState,
)
from db.session import Database
from tests import bundle_factories
from tests.integration.commands import Outcome, clearfilm
from tests.report_factories import report

REPOSITORY = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WAIVED = [
    argument
    for name in ("shadow-days", "shadow-studies", "shadow-abnormal", "shadow-share")
    for argument in ("--waive", f"{name}=tested elsewhere")
]


@dataclass
class Site:
    """A node with an active bundle, and the folders that a training and an evaluation have left."""

    folder: Path
    database: Database
    first: str
    second: str

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def call(self, *arguments: str) -> Outcome:
        return clearfilm(self.config, *arguments)

    def told(self, *arguments: str) -> Any:
        outcome = self.call(*arguments, "--json")
        assert outcome.returncode == 0, outcome.stderr
        return json.loads(outcome.stdout)

    def add(self) -> Outcome:
        evaluation = str(self.folder / "evaluation")
        return self.call("model", "add", str(self.run / "bundle"), "--evaluation", evaluation, "--run", str(self.run))

    def promote(self, user: str) -> list[str]:
        return ["model", "promote", self.second[:12], "--user", user, "--reason", "better", *WAIVED]

    def active(self) -> list[str]:
        with self.database.read() as session:
            return list(session.scalars(select(ModelBundle.digest).where(ModelBundle.state == ModelState.ACTIVE)))

    def killed_at(self, point: str, *arguments: str) -> int:
        """The command as a process of its own that dies at a crash point; its exit code."""
        orders = self.folder / "crash"
        orders.mkdir(exist_ok=True)
        (orders / point).touch()
        ended = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "CLEARFILM_CONFIG": str(self.config), "CLEARFILM_CRASH_FOLDER": str(orders)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        return ended.returncode


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "config.yaml").write_text("disk: {low_water_percent: 0, low_water_gigabytes: 0}\n")
    database = Database(f"sqlite:///{tmp_path}/data/clearfilm.sqlite")
    schema.prepare(database)
    first = bundle_factories.write(tmp_path / "data" / "models" / "first", "1")
    second = bundle_factories.write(tmp_path / "run" / "bundle", "2")
    (tmp_path / "run" / "run.json").write_text(
        json.dumps(
            {
                "cohort": "c" * 64,
                "cohort_folder": "/cohorts/1",
                "settings": {"epochs": 3},
                "started": "2026-02-01T10:00:00+00:00",
            }
        )
    )
    write_evaluation(tmp_path / "evaluation", report(second, first))
    with database.begin() as session:
        registry.register(
            session,
            digest=first,
            name="Test model",
            version="1",
            path=str(tmp_path / "data" / "models" / "first"),
            operating_point={"threshold": 0.3},
            now=NOW,
        )
        registry.start(session, first, actor="worker", now=NOW)
    yield Site(tmp_path, database, first, second)
    database.close()


def write_evaluation(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / REPORT).write_text(json.dumps(content))
    (folder / "report.html").write_text("<p>figures</p>")


def test_added_bundle_needs_its_origin_no_more(site: Site) -> None:
    assert site.add().returncode == 0
    shutil.rmtree(site.run)
    shutil.rmtree(site.folder / "evaluation")
    found = site.told("model", "show", site.second[:8])
    assert (found["state"], found["fault"], found["digest"]) == ("candidate", None, site.second)
    assert found["evaluation"]["auc"] == 0.96
    assert Path(found["evaluation"]["page"]).read_text() == "<p>figures</p>"
    assert found["lineage"]["run"]["cohort"]["digest"] == "c" * 64
    assert site.active() == [site.first]
    assert site.call("model", "show", site.second[:8]).returncode == 0


def test_adding_twice_changes_nothing(site: Site) -> None:
    site.add()
    before = site.told("model", "list")
    assert site.add().returncode == 0
    assert site.told("model", "list") == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda site: write_evaluation(site.folder / "evaluation", report(site.first)), "not of"),
        (lambda site: (site.folder / "evaluation" / REPORT).write_text("{"), "is no evaluation"),
        (lambda site: (site.folder / "evaluation" / REPORT).unlink(), "cannot be read"),
        (lambda site: (site.run / "bundle" / "card.md").write_text("x"), "is altered"),
        (lambda site: (site.run / "run.json").unlink(), "is not the folder of a training run"),
    ],
)
def test_what_does_not_belong_together_is_refused(site: Site, damage: Any, words: str) -> None:
    damage(site)
    outcome = site.add()
    assert outcome.returncode in (1, 2)
    assert words in outcome.stderr


@pytest.mark.parametrize("point", ["written-before-fsync", "fsynced-before-rename"])
def test_bundle_whose_copying_was_killed_is_absent_and_can_be_added_again(site: Site, point: str) -> None:
    arguments = ["model", "add", str(site.run / "bundle")]
    assert site.killed_at(point, *arguments) == -signal.SIGKILL
    assert [row["digest"] for row in site.told("model", "list")] == [site.first]
    assert not (site.folder / "data" / "models" / site.second[:16]).exists()
    assert site.add().returncode == 0


def test_two_users_promote_and_one_rolls_back(site: Site) -> None:
    site.add()
    blocked = site.call("model", "promote", site.second[:12], "--user", "Anna", "--reason", "better")
    assert blocked.returncode == 1
    assert "not signed: shadow-days" in blocked.stdout
    first = site.call(*site.promote("Anna"))
    assert first.returncode == 0
    assert "WARNING: 4 of" in first.stdout
    assert "1 more signature" in first.stdout
    again = site.call(*site.promote("Anna"))
    assert (again.returncode, site.active()) == (1, [site.first])
    assert "another user" in again.stderr
    add_concluded_study(site, "1.2.3")
    second = site.told(*site.promote("Bo"))
    assert second["activated"] is True
    assert site.active() == [site.second]
    found = site.told("model", "show", site.second[:12])
    assert [(entry["user"], entry["kind"]) for entry in found["signatures"]] == [
        ("Anna", "promotion"),
        ("Bo", "promotion"),
    ]
    assert found["signatures"][0]["waivers"]["shadow-days"] == "tested elsewhere"
    back = site.call("model", "rollback", "--user", "Bo", "--reason", "misses", "--list")
    assert back.returncode == 0
    assert site.active() == [site.first]
    assert "studies with an answer of the bundle that went: 0" in back.stdout
    forward = site.told("model", "rollback", site.second, "--user", "Bo", "--reason", "mistaken", "--list")
    assert (forward["studies_decided"], forward["studies"]) == (1, ["1.2.3"])


def test_first_signature_is_withdrawn(site: Site) -> None:
    site.add()
    site.call(*site.promote("Anna"))
    withdraw = ["model", "promote", site.second[:12], "--withdraw", "--user", "Cy", "--reason", "too early"]
    assert site.call(*withdraw, "--waive", "auc=x").returncode == 2
    assert site.told(*withdraw) == {"digest": site.second, "withdrawn": ["Anna"]}
    assert "no signature" in site.call(*withdraw).stderr
    assert site.told(*site.promote("Bo"))["activated"] is False
    found = site.told("model", "show", site.second[:12])["signatures"]
    assert [entry["withdrawn"] and entry["withdrawn"]["user"] for entry in found] == ["Cy", None]
    assert "withdrawn by Cy" in site.call("model", "show", site.second[:12]).stdout


def test_altered_bundle_is_neither_promoted_nor_gone_back_to(site: Site) -> None:
    site.add()
    card = site.folder / "data" / "models" / site.second[:16] / "card.md"
    kept = card.read_bytes()
    card.write_bytes(b"x")
    outcome = site.call(*site.promote("Anna"))
    assert outcome.returncode == 1
    assert "not signed: bundle" in outcome.stdout
    assert site.call(*site.promote("Anna"), "--waive", "bundle=never mind").returncode == 2
    card.write_bytes(kept)
    for user in ("Anna", "Bo"):
        assert site.call(*site.promote(user)).returncode == 0
    (site.folder / "data" / "models" / "first" / "card.md").write_bytes(b"x")
    outcome = site.call("model", "rollback", "--user", "Bo", "--reason", "misses")
    assert (outcome.returncode, site.active()) == (1, [site.second])
    assert "cannot be used any more" in outcome.stderr


@pytest.mark.parametrize("point", PROMOTION)
def test_promotion_that_is_killed_leaves_the_old_or_the_new_bundle(site: Site, point: str) -> None:
    site.add()
    site.call(*site.promote("Anna"))
    assert site.killed_at(point, *site.promote("Bo")) == -signal.SIGKILL
    is_done = point == "promotion-committed"
    assert site.active() == [site.second if is_done else site.first]
    outcome = site.call(*site.promote("Bo"))
    assert outcome.returncode == (1 if is_done else 0)
    assert site.active() == [site.second]
    assert site.killed_at(point, "model", "rollback", "--user", "Bo", "--reason", "misses") == -signal.SIGKILL
    assert site.active() == [site.first if is_done else site.second]


def test_shadow_begins_and_ends(site: Site) -> None:
    site.add()
    assert site.told("model", "shadow", site.second[:8])["state"] == "shadow"
    assert "shadow: Test model 2" in site.call("status").stdout
    assert site.call("model", "shadow", site.second[:8]).returncode == 1
    assert site.told("model", "shadow", site.second[:8], "--stop")["state"] == "candidate"
    assert site.call("model", "shadow", site.second[:8], "--stop").returncode == 1
    assert site.call("model", "shadow", site.first[:8]).returncode == 1


@pytest.mark.parametrize("waiver", ["shadow-days", "shadow-days=", "=x", "nothing=x"])
def test_waiver_without_gate_or_reason_is_wrong_usage(site: Site, waiver: str) -> None:
    site.add()
    assert site.call("model", "promote", site.second, "--user", "A", "--reason", "b", "--waive", waiver).returncode == 2


def test_lineage_walks_from_result_and_study_to_the_labels(site: Site) -> None:
    uid = "1.2.3"
    add_concluded_study(site, uid)
    with site.database.begin() as session:
        run = training_runs.begin(
            session,
            folder="/runs/1",
            cohort_digest="c" * 64,
            cohort_folder="/cohorts/1",
            cohort={
                "source": "archive",
                "counts": {"train": {"patients": 2, "normal": 1, "abnormal": 1}},
                "rules": {"normal": {"whole impression": {"films": 1, "reports": 1}}},
                "excluded": {"no report": 3},
            },
            settings={"epochs": 3},
            started_by="Anna",
            owner=process_name(),
            now=NOW,
        )
        training_runs.end(session, run.id, RunOutcome.FINISHED, now=NOW, bundle_digest=site.first)
    for identifier in (uid, f"{uid}.9"):
        found = site.told("model", "lineage", identifier)
        assert found["films"][0]["sha256"] == "d" * 64
        assert found["films"][0]["analysis"]["score"] == 0.7
        assert (found["model"]["digest"], found["model"]["run"]["started_by"]) == (site.first, "Anna")
        assert found["model"]["run"]["cohort"]["rules"]["normal"]["whole impression"] == {"films": 1, "reports": 1}
        text = site.call("model", "lineage", identifier).stdout
        assert "normal by whole impression: 1 film, 1 report" in text
        assert "Doe" not in text + json.dumps(found)
    assert site.told("model", "lineage", site.first[:10])["model"]["run"]["folder"] == "/runs/1"
    unknown = site.call("model", "lineage", "1.9.9")
    assert (unknown.returncode, "no result, study or bundle" in unknown.stderr) == (1, True)


def test_run_that_died_is_noticed_when_somebody_looks(site: Site) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = f"{process_name().rpartition(':')[0]}:{gone.pid}"
    with site.database.begin() as session:
        training_runs.begin(
            session, folder="/runs/1", cohort_digest="c" * 64, cohort_folder="/c", cohort={}, settings={},
            started_by="Anna", owner=owner, now=NOW,
        )  # fmt: skip
    assert [run["outcome"] for run in site.told("model", "runs")] == ["died"]
    assert "ended without a word" in site.call("model", "runs").stdout
    with site.database.read() as session:
        assert session.scalars(select(TrainingRun.outcome)).one() is RunOutcome.DIED


def add_concluded_study(site: Site, uid: str) -> None:
    """Concluded once, by the first bundle; a shadow has read its film, too."""
    with site.database.begin() as session:
        first, second = (
            session.scalars(select(ModelBundle).where(ModelBundle.digest == digest)).first()
            for digest in (site.first, site.second)
        )
        study = Study(
            study_instance_uid=uid, patient_name="Doe^Jane", patient_id="Doe1", state=StudyState.CONCLUDED, revision=1,
            decision=Decision.SIGNIFICANT_FINDING, first_received_at=NOW, last_received_at=NOW, concluded_at=NOW,
        )  # fmt: skip
        session.add(study)
        session.flush()
        film = Instance(
            study_id=study.id, sop_instance_uid=f"{uid}.1", sop_class_uid="1.2", transfer_syntax_uid="1.2",
            digest="d" * 64, size=1, path=f"films/{uid}", sender="demo", calling_ae_title="X", received_at=NOW,
            state=InstanceState.ANALYSED,
        )  # fmt: skip
        session.add(film)
        session.flush()
        for row, score in ((first, 0.7), (second, 0.2)):
            if row is not None:
                session.add(
                    Analysis(
                        instance_id=film.id, model_id=row.id, score=score, logit=0.0, above=score > 0.3,
                        shadow=row is second, map_path=None if row is second else "m", preprocessing_id="x",
                        device="cpu", facts={}, created_at=NOW,
                    )
                )  # fmt: skip
        assert first is not None
        session.add(
            Result(
                study_id=study.id, revision=1, kind=ResultKind.REPORT, sop_class_uid="1.2", sop_instance_uid=f"{uid}.9",
                series_instance_uid="1.2", transfer_syntax_uid="1.2", position=0, path=f"results/{uid}",
                digest="e" * 64, decision=Decision.SIGNIFICANT_FINDING, model_id=first.id, created_at=NOW,
            )
        )  # fmt: skip
