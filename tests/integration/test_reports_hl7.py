"""The HL7 listener as a process, with scripted senders."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from db.models import Report
from db.session import Database

REPOSITORY = Path(__file__).resolve().parents[2]
START, END = b"\x0b", b"\x1c\r"


@dataclass(frozen=True)
class Listener:
    """A running listener."""

    port: int
    data: Path

    def stored(self) -> list[tuple[str | None, str, str | None]]:
        database = Database(f"sqlite:///{self.data / 'clearfilm.sqlite'}")
        try:
            with database.read() as session:
                rows = session.execute(select(Report.accession_number, Report.impression, Report.label))
                return [(row.accession_number, row.impression, row.label) for row in rows]
        finally:
            database.close()


def start(tmp_path: Path, **settings: object) -> subprocess.Popen[bytes]:
    config = tmp_path / "config.yaml"
    listener = {"port": 0, "senders": ["127.0.0.1"]} | settings
    config.write_text(json.dumps({"data_folder": "data", "reports": {"listener": listener}}), encoding="utf-8")
    with (tmp_path / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", "reports", "listen", "--config", str(config)],
            cwd=REPOSITORY,
            stderr=log,
        )


def ready(tmp_path: Path) -> Listener:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines():
            if line.startswith("ready:"):
                return Listener(int(line.rpartition(":")[2]), tmp_path / "data")
        time.sleep(0.05)
    raise AssertionError("the listener did not start")


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    process = start(tmp_path, maximum_message_kilobytes=64, message_timeout_seconds=0.5, idle_timeout_seconds=1.5)
    try:
        yield ready(tmp_path)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def message(accession: str = "ACC1", impression: str = "两肺心膈未见异常", charset: str = "UNICODE UTF-8") -> str:
    return (
        f"MSH|^~\\&|RIS|H|CF|H|20260301||ORU^R01|42|P|2.5.1||||||{charset}\rPID|1||P1\r"
        f"OBR|1||{accession}|XR|||||||||||||||||||||F\rOBX|1|TX|1&IMP||{impression}\r"
    )


def call(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def answer(connection: socket.socket) -> str:
    received = b""
    while not received.endswith(END):
        chunk = connection.recv(65536)
        if not chunk:
            break
        received += chunk
    return received.decode("utf-8", "replace")


def send(connection: socket.socket, text: bytes) -> str:
    connection.sendall(START + text + END)
    return answer(connection)


def test_an_acknowledged_report_is_committed_and_a_repeated_one_adds_nothing(listener: Listener) -> None:
    with call(listener.port) as connection:
        assert "MSA|AA|42" in send(connection, message().encode())
        assert [row[:2] for row in listener.stored()] == [("ACC1", "两肺心膈未见异常")]
        assert "MSA|AA|42" in send(connection, message().encode())
        assert len(listener.stored()) == 1
        assert "MSA|AA|42" in send(connection, message("ACC2", "右侧气胸", "GB 18030-2000").encode("gb18030"))
    assert [row[1] for row in listener.stored()] == ["两肺心膈未见异常", "右侧气胸"]


def test_reports_get_their_labels(listener: Listener) -> None:
    with call(listener.port) as connection:
        send(connection, message().encode())
    deadline = time.monotonic() + 30
    while [row[2] for row in listener.stored()] != ["no_finding"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_bad_messages_are_told_why_and_the_connection_goes_on(listener: Listener) -> None:
    with call(listener.port) as connection:
        assert "MSA|AR|" in send(connection, b"garbage")
        assert "MSA|AE|42|neither accession number" in send(connection, message(accession="").encode())
        refused = send(connection, message().encode("gb18030"))
        assert "is not utf-8" in refused
        assert "MSA|AR|42" in refused
        assert "MSA|AA|42" in send(connection, message().encode())


def test_a_huge_message_is_refused_and_the_connection_closed(listener: Listener) -> None:
    with call(listener.port) as connection:
        connection.sendall(START + b"x" * 200_000)
        assert "larger than 65536 bytes" in answer(connection)
        assert connection.recv(1) == b""


def test_half_a_message_and_a_silent_connection_are_closed(listener: Listener) -> None:
    with call(listener.port) as half, call(listener.port) as silent:
        half.sendall(START + b"MSH|")
        assert half.recv(1) == b""
        assert silent.recv(1) == b""
    with call(listener.port) as connection:
        assert "MSA|AA|42" in send(connection, message().encode())


def test_two_messages_in_one_packet_have_two_answers(listener: Listener) -> None:
    with call(listener.port) as connection:
        connection.sendall(2 * (START + message().encode() + END))
        received = ""
        while received.count("MSA|AA|42") < 2:
            received += connection.recv(65536).decode()
    assert len(listener.stored()) == 1


def test_message_that_is_begun_anew_counts_once_whatever_its_pieces(listener: Listener) -> None:
    with call(listener.port) as connection:
        connection.sendall(b"noise" + START + message("ACC9", "Pneumonia.").encode()[:-20])
        whole = START + message().encode() + END
        for at in range(0, len(whole), 7):
            connection.sendall(whole[at : at + 7])
        assert "MSA|AA|42" in answer(connection)
    assert [row[0] for row in listener.stored()] == ["ACC1"]


def test_strangers_are_not_heard(tmp_path: Path) -> None:
    process = start(tmp_path, senders=["192.0.2.0/24"])
    try:
        listener = ready(tmp_path)
        with call(listener.port) as connection:
            connection.sendall(START + message().encode() + END)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        assert listener.stored() == []
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_without_senders_the_listener_does_not_start(tmp_path: Path) -> None:
    process = start(tmp_path, senders=[])
    assert process.wait(timeout=60) == 78
    assert "reports.listener.senders" in (tmp_path / "log").read_text(encoding="utf-8")
