"""`clearfilm policy` and `clearfilm simulate` as people call them."""

import getpass
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from clearfilm.policy.rules import Facts, place
from clearfilm.policy.settings import Policy
from clearfilm.policy.stages import Stage
from clearfilm.triage import Decision
from db import placements, policies, schema
from db.models import Audit, Study
from db.policies import DeviceIdentity
from db.session import Database
from tests.integration.test_cli import NOW, UID, add_study, clearfilm


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("policy: {maximum_wait_minutes: 60}\n")
    return path


@pytest.fixture
def database(config_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{config_path.parent}/data/clearfilm.sqlite")
    schema.prepare(opened)
    yield opened
    opened.close()


def place_study(database: Database, uid: str = UID) -> None:
    number = add_study(database, uid)
    with database.begin() as session:
        study = session.get_one(Study, number)
        facts = Facts(Decision.NO_SIGNIFICANT_FINDING, 1, 1, waiting_since=NOW, age_years=40)
        placements.record(session, study, place(facts, Policy(), Stage.SUPERVISED, now=NOW), None, now=NOW)


def test_a_step_up_takes_two_users_and_is_shown(config_path: Path, database: Database) -> None:
    first = clearfilm(config_path, "policy", "stage", "active", "--user", "Ann", "--reason", "three good months")
    assert (first.returncode, first.stdout.split(";")[0]) == (0, "signed: active")
    second = clearfilm(config_path, "policy", "stage", "active", "--user", "Bo", "--reason", "agreed")
    assert second.stdout == "stage: active: tagged studies are read later\n"
    shown = clearfilm(config_path, "policy", "show").stdout
    assert shown.startswith("stage: active")
    assert "three good months" in shown
    assert "red-flag" in shown
    found = json.loads(clearfilm(config_path, "policy", "show", "--json").stdout)
    assert found["history"][-1]["first_signature"]["user"] == "Ann"
    with database.read() as session:
        signed = session.scalars(select(Audit).where(Audit.event == "policy stage signed")).one()
    assert (signed.actor, signed.detail["system_user"]) == ("Ann", getpass.getuser())
    assert found["settings_digest"].startswith(found["version"].split("-")[1])


def test_a_signed_step_is_withdrawn(config_path: Path, database: Database) -> None:
    clearfilm(config_path, "policy", "stage", "active", "--user", "Ann", "--reason", "three good months")
    withdraw = ("policy", "stage", "active", "--withdraw", "--user", "Bo", "--reason", "two were missed")
    assert clearfilm(config_path, *withdraw).stdout == "withdrawn: active; the stage is still supervised\n"
    again = clearfilm(config_path, *withdraw)
    assert (again.returncode, again.stderr) == (1, "clearfilm: no step to active waits for a second signature\n")
    shown = clearfilm(config_path, "policy", "show").stdout
    assert "signed once" not in shown
    assert "withdrawn:" in shown, "in a column as narrow as the terminal makes it"
    found = json.loads(clearfilm(config_path, "policy", "show", "--json").stdout)
    assert found["history"][-1]["withdrawn"]["user"] == "Ann"


@pytest.mark.parametrize(
    ("stage", "code", "words"),
    [
        ("loud", 2, "there is no stage loud; there are: off, shadow, supervised, active"),
        ("supervised", 1, "the stage is supervised already"),
    ],
)
def test_senseless_steps_are_refused_in_words(
    config_path: Path, database: Database, stage: str, code: int, words: str
) -> None:
    outcome = clearfilm(config_path, "policy", "stage", stage, "--user", "Ann", "--reason", "x")
    assert (outcome.returncode, outcome.stderr) == (code, f"clearfilm: {words}\n")


def test_a_device_is_released_and_withdrawn(config_path: Path, database: Database) -> None:
    with database.begin() as session:
        hostile = DeviceIdentity("room 2", "Ac\u202eme", "[red]XR", "7")
        policies.notice_devices(session, [hostile], Policy(), now=NOW)
    said = [
        clearfilm(config_path, "policy", verb, "1", "--user", user, "--reason", "x").stdout
        for verb, user in (("release", "Ann"), ("release", "Bo"), ("withdraw", "Cy"))
    ]
    assert said == [
        "signed: Ac·me [red]XR 7 at room 2; it is released when another person signs too\n",
        "released: Ac·me [red]XR 7 at room 2\n",
        "not released any more: Ac·me [red]XR 7 at room 2\n",
    ]


def test_study_tells_its_place_and_every_reason(config_path: Path, database: Database) -> None:
    place_study(database)
    lines = clearfilm(config_path, "study", UID).stdout.splitlines()
    assert lines[2].startswith("place: usual, tagged for later (policy 2-")
    assert lines[3] == (
        "  clear: the only film is below the operating point, and no rule speaks against reading it later"
    )
    found = json.loads(clearfilm(config_path, "study", UID, "--json").stdout)
    assert found["placements"][-1]["reasons"][1]["rule"] == "stage-supervised"


def test_simulation_of_a_file(config_path: Path, tmp_path: Path) -> None:
    table = tmp_path / "arrivals.csv"
    rows = [
        f"{(NOW + timedelta(minutes=5 * number)).isoformat()},{'yes' if number % 2 else 'no'},{int(number % 7 == 1)}"
        for number in range(400)
    ]
    table.write_text("arrived_at,tagged,abnormal\n" + "\n".join(rows) + "\n")
    arguments = ("simulate", "--arrivals", str(table), "--minutes", "4.8", "--limit", "30")
    outcome = clearfilm(config_path, *arguments, "--json")
    waits = json.loads(outcome.stdout)["waits_seconds"]
    assert waits["all"]["triage"]["studies"] == 400
    assert waits["all"]["triage"]["maximum"] > waits["all"]["first come"]["maximum"]
    assert waits["all"]["triage with the limit"]["maximum"] < waits["all"]["triage"]["maximum"]
    text = clearfilm(config_path, *arguments).stdout
    assert "400 studies, 1 reader, 4.8 minutes a study" in text
    assert "missed abnormal" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("arrived_at,tagged\n", "has no rows"),
        ("arrived_at,tagged\nyesterday,yes\n", "line 2: Invalid isoformat"),
        ("arrived_at,tagged\n2026-03-01T12:00,perhaps\n", "'perhaps' is neither yes nor no"),
    ],
)
def test_unreadable_arrivals_are_refused_with_the_line(
    config_path: Path, tmp_path: Path, content: str, words: str
) -> None:
    table = tmp_path / "arrivals.csv"
    table.write_text(content)
    outcome = clearfilm(config_path, "simulate", "--arrivals", str(table))
    assert outcome.returncode == 2
    assert words in outcome.stderr


def test_simulation_of_the_database(config_path: Path, database: Database) -> None:
    empty = clearfilm(config_path, "simulate")
    assert (empty.returncode, "no study has been concluded" in empty.stderr) == (1, True)
    for number in range(3):
        place_study(database, f"1.2.{number}")
    found = json.loads(clearfilm(config_path, "simulate", "--json").stdout)
    assert (found["studies"], found["limit_minutes"]) == (3, 60)
    assert found["waits_seconds"]["tagged"]["triage"]["studies"] == 3
    assert "abnormal" not in found["waits_seconds"]
