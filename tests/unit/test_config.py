"""The configuration says all that is wrong with it, and nothing is taken silently."""

from pathlib import Path

import pytest

from clearfilm import config as configuration
from clearfilm.config import Disk
from clearfilm.errors import ConfigurationError

REPOSITORY = Path(__file__).resolve().parents[2]


def load(folder: Path, text: str) -> configuration.Config:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return configuration.load(path)


def test_all_faults_are_told_at_once_each_with_its_path(tmp_path: Path) -> None:
    text = """
node: {ae_title: "WITH\\\\BACKSLASH", port: 70000}
senders: [{name: a, ae_title: X, addresses: [10.0.0.300]}]
destination: []
"""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    for part in ("node.ae_title", "node.port", "senders.0.addresses.0", "destination: there is no such key"):
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "1: 2\n"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        load(tmp_path, text)


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARFILM_NODE__PORT", "104")
    monkeypatch.setenv("CLEARFILM_STUDY__QUIET_SECONDS", "3")
    config = load(tmp_path, "node: {port: 11112, ae_title: SITE}\n")
    assert (config.node.port, config.node.ae_title, config.study.quiet_seconds) == (104, "SITE", 3)


def test_unknown_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARFILM_NODES__PORT", "104")
    with pytest.raises(ConfigurationError, match="CLEARFILM_NODES__PORT"):
        load(tmp_path, "")


def test_names_of_senders_and_destinations_are_unique(tmp_path: Path) -> None:
    entry = "{name: a, ae_title: X, addresses: [10.0.0.1]}"
    with pytest.raises(ConfigurationError, match="repeated: a"):
        load(tmp_path, f"senders: [{entry}, {entry}]\n")


def test_relative_paths_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    config = load(tmp_path, "data_folder: spool\nmodel: {bundle: own}\n")
    assert config.data_folder == tmp_path / "spool"
    assert config.model.bundle == tmp_path / "own"
    assert config.database_url == f"sqlite:///{tmp_path}/spool/clearfilm.sqlite"


def test_shipped_bundle_is_found_from_a_configuration_elsewhere(tmp_path: Path) -> None:
    assert load(tmp_path, "").model.bundle == REPOSITORY / "models" / "reference"


@pytest.mark.parametrize("host", ["", "a..b", "x" * 64])
def test_host_that_nobody_can_look_up_is_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"destinations\.0\.host"):
        load(tmp_path, f"destinations: [{{name: a, ae_title: X, host: '{host}', port: 104}}]\n")


@pytest.mark.parametrize(("total", "mark"), [(20e9, 5e9), (200e9, 20e9)])
def test_larger_of_the_two_disk_marks_counts(total: float, mark: float) -> None:
    assert Disk().low_water(int(total)) == mark


@pytest.mark.parametrize("name", ["NODE", "SENDERS", "DESTINATIONS"])
@pytest.mark.parametrize("value", ["abc", "", "[1", '"abc"', "[1]", "7"])
def test_variable_of_a_whole_section_must_be_json_of_its_form(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CLEARFILM_{name}", value)
    with pytest.raises(ConfigurationError, match=f"(?i){name}"):
        load(tmp_path, "node: {port: 104}\n")


@pytest.mark.parametrize(
    "url",
    [
        "foo",
        "",
        "mysql://secret@host/x",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/file",
        "postgresql+asyncpg://secret@host/x",
        "postgresql://u:secret@host:port/x",
    ],
)
def test_other_databases_are_refused_without_telling_the_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"database\.url: must be postgresql") as caught:
        load(tmp_path, f"database: {{url: '{url}'}}\n")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql+psycopg://u:p@h/d", "postgresql://h/d", "sqlite:////var/lib/x.sqlite"])
def test_database_url_is_taken_as_it_is(url: str, tmp_path: Path) -> None:
    assert load(tmp_path, f"database: {{url: '{url}'}}\n").database_url == url


def test_relative_database_file_is_taken_from_the_files_folder(tmp_path: Path) -> None:
    url = load(tmp_path, "database: {url: 'sqlite:///own.sqlite'}\n").database_url
    assert url == f"sqlite:///{tmp_path}/own.sqlite"
