"""What cannot work is said in one sentence, with the right exit code, before anything is lost."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.films import sample
from tests.acceptance.nodes import REPOSITORY, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def stopped(tmp_path: Path) -> Node:
    """A node that is not started; its PACS is nowhere."""
    node = Node(tmp_path, pacs_port=9)
    node.write_config()
    return node


def run_up(node: Node) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "up", "--config", str(node.config_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def rewrite(node: Node, change: Callable[[str], str]) -> None:
    node.config_path.write_text(change(node.config_path.read_text(encoding="utf-8")), encoding="utf-8")


def sentences(outcome: "subprocess.CompletedProcess[str]") -> str:
    """What the user reads beside the log."""
    assert "Traceback" not in outcome.stderr
    return "\n".join(line for line in outcome.stderr.splitlines() if line.startswith("clearfilm:"))


def test_every_fault_of_a_configuration_is_told_at_once(stopped: Node) -> None:
    rewrite(
        stopped, lambda text: text.replace("ae_title: CLEARFILM", "ae_title: MUCH_TOO_LONG_A_TITLE") + "\nspeed: 9\n"
    )
    outcome = run_up(stopped)
    assert outcome.returncode == 78
    assert "node.ae_title" in sentences(outcome)
    assert "speed: there is no such key" in sentences(outcome)


def test_missing_configuration_names_the_option(tmp_path: Path) -> None:
    outcome = run_up(Node(tmp_path / "nowhere", 9))
    assert outcome.returncode == 78
    assert "--config" in sentences(outcome)


def test_damaged_database_says_restore(stopped: Node) -> None:
    stopped.data.mkdir()
    (stopped.data / "clearfilm.sqlite").write_bytes(b"this is no database" * 500)
    outcome = run_up(stopped)
    assert outcome.returncode == 1
    assert "restore a backup" in sentences(outcome)


def test_data_folder_that_cannot_be_made_is_named(stopped: Node) -> None:
    stopped.data.write_text("a file where the folder should be")
    outcome = run_up(stopped)
    assert outcome.returncode == 1
    assert str(stopped.data) in sentences(outcome)


def test_port_in_use_is_named(stopped: Node) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        rewrite(stopped, lambda text: text.replace("port: 0", f"port: {port}"))
        outcome = run_up(stopped)
    assert outcome.returncode == 1
    assert f"127.0.0.1:{port} is in use" in sentences(outcome)


def test_missing_bundle_is_named(stopped: Node) -> None:
    rewrite(stopped, lambda text: text.replace(str(REPOSITORY / "models" / "reference"), "/nowhere/bundle"))
    outcome = run_up(stopped)
    assert outcome.returncode == 1
    assert "/nowhere/bundle" in sentences(outcome)


def test_altered_bundle_is_refused(stopped: Node, tmp_path: Path) -> None:
    from tests import bundle_factories

    bundle_factories.write(tmp_path / "bundle")
    card = tmp_path / "bundle" / "card.md"
    card.chmod(0o600)
    card.write_text("# Another card\n")
    rewrite(stopped, lambda text: text.replace(str(REPOSITORY / "models" / "reference"), str(tmp_path / "bundle")))
    outcome = run_up(stopped)
    assert outcome.returncode == 1
    assert "card.md does not match the manifest" in sentences(outcome)


def test_a_port_that_the_pages_cannot_have_does_not_stop_films(stopped: Node) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        stopped.settings["worklist.port"] = port
        stopped.has_pages = False
        stopped.start()
        try:
            stopped.send_until_stored(sample("cr-mass"))
            assert f"127.0.0.1:{port} is in use" in stopped.log
            assert "the node goes on without them" in stopped.log
        finally:
            assert stopped.stop() == 0


def test_line_after_ready_tells_where_the_pages_are(stopped: Node) -> None:
    stopped.start()
    try:
        assert stopped.process is not None
        assert stopped.process.stdout is not None
        assert httpx2.get(f"{stopped.worklist}readyz").text.splitlines() == [
            "database: ok",
            "disk: ok",
            "storescp: ok",
            "worker: ok",
            "deliver: ok",
            "schedule: ok",
        ]
        line = stopped.process.stdout.readline()
        assert line.startswith(f"first login, good once and for 24 hours: {stopped.worklist}first?token=")
        assert httpx2.get(line.split()[-1]).status_code == 200
    finally:
        assert stopped.stop() == 0
