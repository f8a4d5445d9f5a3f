"""The systemd units: sound, tightly sandboxed, and in agreement with the processes that they start."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
PROGRAM = "/opt/clearfilm/current/venv/bin/clearfilm"
SERVICES = (
    "clearfilm.service",
    "clearfilm-storescp@.service",
    "clearfilm-worker.service",
    "clearfilm-deliver.service",
    "clearfilm-schedule.service",
    "clearfilm-worklist.service",
)
# systemd-analyze's scale: 0 (nothing is exposed) to 10 (everything), times ten.
MOST_EXPOSURE = "25"
READY_SECONDS = 60.0


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as installed, but for the program, which is not."""
    if shutil.which("systemd-analyze") is None:
        message = "systemd-analyze is not installed (see .ci/run for the packages)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("units")
    shutil.copytree(DEPLOY, folder, symlinks=True, dirs_exist_ok=True)
    for service in SERVICES:
        path = folder / service
        path.write_text(path.read_text().replace(PROGRAM, "/bin/true"))
    return folder


def analyze(units: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
        capture_output=True,
        text=True,
    )


def instance(service: str) -> str:
    return service.replace("@.", "@1.")


@pytest.mark.peer
@pytest.mark.parametrize("unit", ["clearfilm.target", *SERVICES])
def test_unit_is_valid(units: Path, unit: str) -> None:
    verdict = analyze(units, "verify", "--man=no", instance(unit))
    assert (verdict.returncode, verdict.stderr) == (0, "")


@pytest.mark.peer
@pytest.mark.parametrize("service", SERVICES)
def test_service_is_sandboxed(units: Path, service: str) -> None:
    verdict = analyze(units, "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", instance(service))
    assert verdict.returncode == 0, verdict.stdout


def setting(service: str, name: str) -> str:
    common = DEPLOY / "clearfilm-.service.d" / "common.conf"
    text = common.read_text() + (DEPLOY / service).read_text()
    [value] = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
    return value


@pytest.mark.parametrize("service", SERVICES)
def test_wrong_configuration_ends_with_the_code_that_prevents_a_restart(service: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("nodes: {}\n")
    ended = subprocess.run(command(service, config), cwd=REPOSITORY, capture_output=True, timeout=60)
    assert str(ended.returncode) == setting(service, "RestartPreventExitStatus")


@pytest.mark.parametrize(
    "service",
    [
        "clearfilm-storescp@.service",
        "clearfilm-deliver.service",
        "clearfilm-schedule.service",
        "clearfilm-worklist.service",
    ],
)
def test_service_says_ready_and_ends_well_on_sigterm(service: str, tmp_path: Path, channel: socket.socket) -> None:
    assert setting(service, "Type") == "notify"
    config = tmp_path / "config.yaml"
    settings = ["data_folder: data", "node: {port: 0}", "worklist: {port: 0}"]
    settings += ["disk: {low_water_percent: 0, low_water_gigabytes: 0}"]
    config.write_text("\n".join(settings))
    environment = {**os.environ, "NOTIFY_SOCKET": channel.getsockname()}
    with subprocess.Popen(command(service, config), cwd=REPOSITORY, env=environment) as process:
        try:
            assert b"READY=1" in channel.recv(4096)
            process.send_signal(signal.SIGTERM)
            assert process.wait(float(setting(service, "TimeoutStopSec"))) == 0
        finally:
            process.kill()


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(READY_SECONDS)
        yield listening


def command(service: str, config: Path) -> list[str]:
    """The unit's own command line, with this interpreter and another configuration."""
    program, *arguments = setting(service, "ExecStart").split()
    assert program == PROGRAM
    assert arguments[-1] == "/etc/clearfilm/config.yaml"
    return [sys.executable, "-m", "cli.main", *arguments[:-1], str(config)]


def test_command_of_the_administrator_is_a_sound_shell_script() -> None:
    assert subprocess.run(["sh", "-n", str(DEPLOY / "clearfilm")]).returncode == 0
