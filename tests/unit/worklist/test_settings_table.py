"""The configuration as the console shows it: origins, secrets, differences."""

from pathlib import Path

import pytest

from clearfilm import config as configuration
from clearfilm.alert_settings import Alerts, Webhook
from clearfilm.config import Config, Database, Listener
from worklist import settings_table

SHIPPED = Path(__file__).parents[3] / "config.yaml"


def test_every_key_has_its_origin_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARFILM_STUDY__QUIET_SECONDS", "7")
    config = Config(listener=Listener(echo_from_anyone=True))
    found = {row.key: row for row in settings_table.rows(config, {"listener": {"echo_from_anyone": True}})}
    assert (found["listener.echo_from_anyone"].value, found["listener.echo_from_anyone"].origin) == ("true", "file")
    assert (found["study.quiet_seconds"].value, found["study.quiet_seconds"].origin) == ("7.0", "environment")
    assert found["node.port"].origin == "default"
    assert found["listener.echo_from_anyone"].words == "Answer C-ECHO also to titles that are not listed as senders."


def test_secrets_are_masked() -> None:
    config = Config(
        database=Database(url="postgresql+psycopg://node:hunter2@db/clearfilm"),
        alerts=Alerts(webhook=Webhook(url="https://user:hunter2@hooks.example/x?token=hunter2")),
    )
    shown = {row.key: row.value for row in settings_table.rows(config, {})}
    assert not any("hunter2" in value for value in shown.values())
    assert "db/clearfilm" in shown["database.url"]
    assert "hooks.example" in shown["alerts.webhook.url"]


def test_differences_and_who_must_start_again() -> None:
    before = Config()
    assert settings_table.changes(before, before) == []
    after = before.model_copy(update={"listener": Listener(maximum_connections=3)})
    (change,) = settings_table.changes(before, after)
    assert (change.key, change.before, change.after) == ("listener.maximum_connections", "64", "3")
    assert settings_table.to_restart([change]) == ["storescp"]


def test_another_password_is_a_difference_without_being_shown() -> None:
    one, two = (
        Config(database=Database(url=f"postgresql+psycopg://node:{secret}@db/c")) for secret in ("hunter2", "hunter3")
    )
    (change,) = settings_table.changes(one, two)
    assert change.key == "database.url"
    assert "hunter" not in change.before + change.after


def test_readers_name_sections_that_there_are() -> None:
    assert set(settings_table.READERS) <= set(Config.model_fields)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("node: {port: 99999}\nstudy: {quiet_seconds: -1}\nnothing: 1", "node.port"),
        ("a: [", "not valid YAML"),
        ("[" * 5000, ""),
        ("- 1", "mapping"),
        ("1: 2", "mapping"),
        ("&a [*a]", ""),
    ],
)
def test_text_with_faults_is_told_all_of_them(text: str, fault: str, tmp_path: Path) -> None:
    faults, config = configuration.try_text(text, tmp_path)
    assert config is None
    assert any(fault in one for one in faults)
    if "nothing" in text:
        assert len(faults) == 3


def test_shipped_file_differs_from_itself_in_nothing() -> None:
    faults, config = configuration.try_text(SHIPPED.read_text(encoding="utf-8"), SHIPPED.parent)
    assert faults == []
    assert config is not None
    assert settings_table.changes(configuration.load(SHIPPED), config) == []
