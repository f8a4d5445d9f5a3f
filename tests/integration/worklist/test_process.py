"""`clearfilm worklist` as a process: light, told apart from the others, ended in order."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest

from cli import users
from tests.integration.worklist.conftest import PASSWORD, form_token
from worklist import main

REPOSITORY = Path(__file__).resolve().parents[3]
MOST_MEGABYTES = 200


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("data_folder: data\nworklist: {port: 0}\n")
    return path


@pytest.fixture
def process(config: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "worklist", "--config", str(config)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_process_is_light_says_where_it_is_and_ends_with_open_streams(
    config: Path, process: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    assert process.stdout is not None
    [url] = re.findall(r"^ready: (http://127\.0\.0\.1:\d+)/$", process.stdout.readline())
    line = process.stdout.readline()
    assert line.startswith(f"first login, good once and for 24 hours: {url}/first?token=")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    users.add(config, "Anna", "admin", tmp_path / "password")
    with httpx2.Client(base_url=url, timeout=30) as client:
        for _ in range(3):
            token = form_token(client.get("/login").text)
            assert client.post("/login", data={"name": "anna", "password": PASSWORD, "form_token": token}).is_redirect
            client.cookies.delete("clearfilm-form")
            pages = [client.get(path).status_code for path in ("/worklist", "/admin/users", "/settings", "/metrics")]
            assert pages == [200] * 4
            client.cookies.clear()
        token = form_token(client.get("/login").text)
        client.post("/login", data={"name": "anna", "password": PASSWORD, "form_token": token})
        assert psutil.Process(process.pid).memory_info().rss < MOST_MEGABYTES * 1e6
        with client.stream("GET", "/events") as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("event: hello")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_answers_are_not_held_back_until_the_peer_acknowledges() -> None:
    # asyncio switches Nagle's algorithm off only for sockets that were made with the protocol's name.
    async def connected() -> bool:
        listening = main._bind("127.0.0.1", 0)
        accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken = writer.get_extra_info("socket")
            accepted.set_result(bool(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()

        async with await asyncio.start_server(note, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            writer.close()
            return await accepted

    # In a thread of its own: a browser of another test may have left its event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: asyncio.run(connected())).result(30)


def test_second_process_on_the_port_says_so(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = tmp_path / "config.yaml"
        config.write_text(f"data_folder: data\nworklist: {{port: {port}}}\n")
        outcome = subprocess.run(
            [sys.executable, "-m", "cli.main", "worklist", "--config", str(config)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert outcome.returncode == 1
    assert f"127.0.0.1:{port} is in use" in outcome.stderr


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys, worklist.main\n"
        "heavy = {'torch', 'torchvision', 'scipy', 'sklearn', 'cv2', 'pandas', 'pynetdicom', 'highdicom'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
