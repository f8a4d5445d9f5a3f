"""Alerts: found, opened once, sent to a real SMTP server and a real HTTP server, closed by themselves."""

import email
import email.policy
import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from sqlalchemy import select, update

from clearfilm.alert_settings import Alerts, Mail, Webhook
from clearfilm.config import Config, Disk, Sender
from clearfilm.policy.stages import Signature
from clearfilm.policy.stages import Stage as PolicyStage
from db import alerts, intake, policies, processes, schema, switches
from db.alerts import Alert, AlertKind
from db.intake import ReceivedFilm, StudyAttributes
from db.models import Instance, InstanceState, Job, JobKind
from db.session import Database
from db.switches import Stage
from tests.integration.conftest import free_port
from worker.alerting import WATCHED, Alarm

ROOM = Sender(name="room 1", ae_title="ROOM", addresses=("127.0.0.1",))


class Inbox:
    """What an SMTP server was given."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        self.messages.append(envelope.content.decode())
        return "250 OK"


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, int]]:
    box = Inbox()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box, port
    controller.stop()


@pytest.fixture
def hook() -> Iterator[tuple[list[tuple[dict[str, str], bytes]], int, list[int]]]:
    got: list[tuple[dict[str, str], bytes]] = []
    answers = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((dict(self.headers), body))
            self.send_response(answers[-1])
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield got, server.server_address[1], answers
    server.shutdown()
    thread.join()
    server.server_close()


def configuration(folder: Path, **settings: Any) -> Config:
    return Config(
        data_folder=folder,
        senders=(ROOM,),
        disk=Disk(low_water_percent=0, low_water_gigabytes=0),
        alerts=Alerts(disk_days=0, **settings),
    )


def alarm(config: Config, database: Database) -> Alarm:
    return Alarm(config, database, "backups")


def open_kinds(database: Database) -> set[AlertKind]:
    with database.read() as session:
        return {alert.kind for alert in alerts.open_alerts(session)}


def receive(database: Database, at: datetime, name: str = "Doe^Jane") -> None:
    film = ReceivedFilm(
        study=StudyAttributes(
            study_instance_uid=f"1.2.{secrets.randbelow(10**12)}", patient_name=name, patient_id="4711"
        ),
        sop_instance_uid=f"1.2.{secrets.randbelow(10**12)}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        series_instance_uid="1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=secrets.token_hex(32),
        size=1,
        path=f"films/{secrets.token_hex(8)}",
        sender="room 1",
        calling_ae_title="ROOM",
    )
    with database.begin() as session:
        intake.record(session, film, now=at, quiet=timedelta(0))


def fail_something(database: Database) -> None:
    with database.begin() as session:
        now = database.now(session)
    receive(database, now)
    with database.begin() as session:
        session.execute(update(Instance).values(state=InstanceState.FAILED, reason="analysis failed: unexpected E"))


def test_alert_is_mailed_and_posted_once_without_patient_data(
    database: Database, tmp_path: Path, inbox: tuple[Inbox, int], hook: Any
) -> None:
    box, port = inbox
    got, hook_port, _ = hook
    secret = tmp_path / "secret"
    secret.write_text("key\n")
    mail = Mail(host="127.0.0.1", port=port, recipients=("pacs@example.org",), sender="node@example.org")
    webhook = Webhook(url=f"http://127.0.0.1:{hook_port}/alerts", secret_file=secret)
    watch = alarm(configuration(tmp_path, mail=mail, webhook=webhook, link="https://node.example"), database)
    fail_something(database)
    watch.turn()
    watch.turn()
    (message,) = box.messages
    assert "[CLEARFILM] 1 piece of work has failed" in message
    assert "https://node.example/admin/alerts" in message
    ((headers, body),) = got
    assert json.loads(body)["kind"] == "failures"
    signed = f"{headers['X-Clearfilm-Timestamp']}.".encode() + body
    expected = hmac.new(b"key", signed, hashlib.sha256).hexdigest()
    assert headers["X-Clearfilm-Signature"] == f"sha256={expected}"
    assert not any(word in text for text in (message, body.decode()) for word in ("Doe", "4711"))


def test_alert_that_cannot_be_sent_says_so_and_is_tried_again(database: Database, tmp_path: Path, hook: Any) -> None:
    got, port, answers = hook
    watch = alarm(configuration(tmp_path, webhook=Webhook(url=f"http://127.0.0.1:{port}")), database)
    fail_something(database)
    answers.append(307)  # a redirect is not followed
    watch.turn()
    with database.read() as session:
        assert "307" in (session.scalars(select(Alert.trouble)).one() or "")
    answers.append(204)
    watch.turn()
    with database.read() as session:
        row = session.scalars(select(Alert)).one()
        assert row.trouble is None
        assert row.posted_at is not None
    assert len(got) == 2


def mend_everything(database: Database) -> None:
    with database.begin() as session:
        session.execute(update(Instance).values(state=InstanceState.QUEUED, reason=None))


def test_end_of_an_alert_is_told_once_on_the_ways_of_its_beginning(
    database: Database, tmp_path: Path, inbox: tuple[Inbox, int], hook: Any
) -> None:
    box, port = inbox
    got, hook_port, _ = hook
    mail = Mail(host="127.0.0.1", port=port, recipients=("pacs@example.org",), sender="node@example.org")
    webhook = Webhook(url=f"http://127.0.0.1:{hook_port}/alerts")
    watch = alarm(configuration(tmp_path, mail=mail, webhook=webhook, link="https://node.example"), database)
    fail_something(database)
    watch.turn()
    with database.begin() as session:
        row = session.scalars(select(Alert)).one()
        began_at = row.opened_at = row.opened_at - timedelta(hours=26, minutes=5)
    mend_everything(database)
    watch.turn()
    watch.turn()
    first, last = (email.message_from_string(text, policy=email.policy.default) for text in box.messages)
    assert last["Subject"] == "[CLEARFILM] Over: 1 piece of work has failed and waits for somebody to look at it."
    assert last["In-Reply-To"].startswith("<clearfilm-alert.")
    assert first["Message-ID"] != last["Message-ID"]
    content = last.get_content()
    assert f"From {began_at:%Y-%m-%d %H:%M} UTC to " in content
    assert ": 1 day 2 h." in content
    assert "https://node.example/admin/alerts" in content
    begun, over = (json.loads(body) for _, body in got)
    assert (begun["state"], begun["closed_at"], begun["seconds"]) == ("open", None, None)
    assert (over["state"], over["advice"]) == ("over", None)
    same = ("node", "alert", "kind", "subject", "facts")
    assert [over[name] for name in same] == [begun[name] for name in same]
    assert over["text"] == f"Over: {begun['text']}"
    length = datetime.fromisoformat(over["closed_at"]) - datetime.fromisoformat(over["opened_at"])
    assert over["seconds"] == round(length.total_seconds())


def test_message_of_the_end_answers_the_one_of_the_beginning(
    database: Database, tmp_path: Path, inbox: tuple[Inbox, int]
) -> None:
    box, port = inbox
    mail = Mail(host="127.0.0.1", port=port, recipients=("pacs@example.org",), sender="node@example.org")
    watch = alarm(configuration(tmp_path, mail=mail), database)
    fail_something(database)
    watch.turn()
    mend_everything(database)
    watch.turn()
    first, last = (email.message_from_string(text) for text in box.messages)
    assert last["In-Reply-To"] == last["References"] == first["Message-ID"]


def test_end_of_an_alert_that_was_never_told_is_not_told(
    database: Database, tmp_path: Path, inbox: tuple[Inbox, int], hook: Any
) -> None:
    box, port = inbox
    got, hook_port, answers = hook
    answers.append(503)
    mail = Mail(host="127.0.0.1", port=port, recipients=("pacs@example.org",))
    webhook = Webhook(url=f"http://127.0.0.1:{hook_port}")
    watch = alarm(configuration(tmp_path, mail=mail, webhook=webhook), database)
    fail_something(database)
    watch.turn()
    mend_everything(database)
    answers.append(200)
    watch.turn()
    assert len(got) == 1  # the one that was refused
    assert len(box.messages) == 2


def test_end_that_cannot_be_sent_is_tried_again_for_a_day(database: Database, tmp_path: Path, hook: Any) -> None:
    got, port, answers = hook
    watch = alarm(configuration(tmp_path, webhook=Webhook(url=f"http://127.0.0.1:{port}")), database)
    fail_something(database)
    watch.turn()
    mend_everything(database)
    answers.append(503)
    watch.turn()
    with database.read() as session:
        assert "503" in (session.scalars(select(Alert.trouble)).one() or "")
    answers.append(200)
    watch.turn()
    with database.read() as session:
        row = session.scalars(select(Alert)).one()
        assert (row.trouble, row.posted_over_at is not None) == (None, True)
    states = [json.loads(body)["state"] for _, body in got]
    assert states == ["open", "over", "over"]
    with database.begin() as session:
        row = session.scalars(select(Alert)).one()
        row.posted_over_at, row.closed_at = None, row.closed_at - timedelta(days=2)
    watch.turn()
    assert len(got) == 3


def test_the_end_is_told_before_the_same_begins_anew(database: Database, tmp_path: Path, hook: Any) -> None:
    got, port, answers = hook
    watch = alarm(configuration(tmp_path, webhook=Webhook(url=f"http://127.0.0.1:{port}")), database)
    fail_something(database)
    watch.turn()
    mend_everything(database)
    answers.append(503)
    watch.turn()
    fail_something(database)
    answers.append(200)
    watch.turn()
    told = [(json.loads(body)["state"], json.loads(body)["alert"]) for _, body in got]
    first, second = told[0][1], told[-1][1]
    assert first != second
    assert told == [("open", first), ("over", first), ("over", first), ("open", second)]


def test_one_way_that_works_does_not_hide_the_trouble_of_the_other(
    database: Database, tmp_path: Path, hook: Any
) -> None:
    got, port, _ = hook
    mail = Mail(host="127.0.0.1", port=free_port(), recipients=("pacs@example.org",))
    webhook = Webhook(url=f"http://127.0.0.1:{port}")
    fail_something(database)
    alarm(configuration(tmp_path, mail=mail, webhook=webhook), database).turn()
    assert len(got) == 1
    with database.read() as session:
        assert (session.scalars(select(Alert.trouble)).one() or "").startswith("mail: ")


def test_alert_closes_when_its_cause_has_gone_and_opens_anew(database: Database, tmp_path: Path) -> None:
    watch = alarm(configuration(tmp_path), database)
    fail_something(database)
    watch.look()
    watch.look()
    assert open_kinds(database) == {AlertKind.FAILURES}
    with database.begin() as session:
        number = alerts.open_alerts(session)[0].id
        assert alerts.acknowledge(session, number, actor="ann", now=database.now(session))
        assert not alerts.acknowledge(session, number, actor="bob", now=database.now(session))
        session.execute(update(Instance).values(state=InstanceState.QUEUED, reason=None))
    watch.look()
    assert open_kinds(database) == set()
    with database.begin() as session:
        session.execute(update(Instance).values(state=InstanceState.FAILED))
    watch.look()
    with database.read() as session:
        assert [alert.acknowledged_by for alert in alerts.newest(session)] == [None, "ann"]


def test_sender_that_usually_sends_and_has_stopped_is_told(database: Database, tmp_path: Path) -> None:
    with database.read() as session:
        now = database.now(session)
    hour = now.replace(minute=0, second=0, microsecond=0)
    for days in range(1, 22):
        for hours in (1, 2, 3, 4, 5):
            receive(database, hour - timedelta(days=days, hours=hours))
    with database.begin() as session:
        session.execute(update(Job).values(created_at=now))
    alarm(configuration(tmp_path), database).look()
    assert open_kinds(database) == {AlertKind.SILENT_SENDER}
    with database.read() as session:
        (found,) = alerts.open_alerts(session)
        assert (found.subject, found.facts["missed"]) == ("room 1", pytest.approx(5, abs=0.3))
    receive(database, now)
    alarm(configuration(tmp_path), database).look()
    assert open_kinds(database) == set()


def test_paused_reception_is_no_silence_but_becomes_an_alert_itself(database: Database, tmp_path: Path) -> None:
    with database.begin() as session:
        now = database.now(session)
        switches.pause(session, Stage.RECEIVE, reason="x", actor="ann", now=now - timedelta(hours=5))
    alarm(configuration(tmp_path), database).look()
    with database.read() as session:
        (found,) = alerts.open_alerts(session)
        assert (found.kind, found.subject, found.facts) == (AlertKind.PAUSED, "receive", {"hours": 5})


def test_work_that_waits_too_long_and_a_destination_that_is_away_are_told(database: Database, tmp_path: Path) -> None:
    with database.read() as session:
        now = database.now(session)
    receive(database, now - timedelta(hours=1))
    with database.begin() as session:
        session.execute(
            update(Job)
            .where(Job.kind == JobKind.CONCLUDE)
            .values(kind=JobKind.DELIVER, destination="pacs", retries=3, last_error="PACS@p:104 answered 0xA700")
        )
    alarm(configuration(tmp_path), database).look()
    with database.read() as session:
        found = {alert.kind: alert for alert in alerts.open_alerts(session)}
    assert found[AlertKind.STUCK].facts["minutes"] in (60, 61)
    assert found[AlertKind.DESTINATION].facts == {"error": "PACS@p:104 answered 0xA700"}


def test_destination_that_is_away_is_told_however_many_studies_share_the_tries(
    database: Database, tmp_path: Path
) -> None:
    with database.read() as session:
        now = database.now(session)
    for _ in range(5):
        receive(database, now)
    with database.begin() as session:
        jobs = session.scalars(select(Job).where(Job.kind == JobKind.CONCLUDE).order_by(Job.id)).all()
        for number, job in enumerate(jobs):
            job.kind, job.destination = JobKind.DELIVER, "pacs"
            if number < 2:
                job.retries, job.last_error = 1, "PACS@p:104 did not answer"
    watch = alarm(configuration(tmp_path), database)
    watch.look()
    assert open_kinds(database) == set()
    with database.begin() as session:
        session.get_one(Job, jobs[2].id).retries = 1
        session.get_one(Job, jobs[2].id).last_error = "PACS@p:104 did not answer"
    watch.look()
    assert open_kinds(database) == {AlertKind.DESTINATION}


def test_a_policy_that_stepped_down_by_itself_is_told_until_a_person_has_decided(
    database: Database, tmp_path: Path
) -> None:
    config = configuration(tmp_path)
    with database.begin() as session:
        policies.step_down(session, config.policy, "10 of 10 were tagged", now=database.now(session))
    watch = alarm(config, database)
    watch.look()
    with database.read() as session:
        (found,) = alerts.open_alerts(session)
        assert (found.kind, found.facts) == (AlertKind.POLICY, {"reason": "alarm: 10 of 10 were tagged"})
    with database.begin() as session:
        signature = Signature("Ann", "looked at the films", database.now(session))
        policies.request_step(session, config.policy, PolicyStage.OFF, signature)
    watch.look()
    assert open_kinds(database) == set()


def test_process_that_is_gone_for_longer_than_a_restart_is_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = alarm(configuration(tmp_path), database)
    watch.look()
    assert open_kinds(database) == set()
    monkeypatch.setattr("worker.alerting.GRACE", timedelta(0))
    with processes.Heartbeat(database, "worker"):
        watch.look()
        with database.read() as session:
            subjects = {alert.subject for alert in alerts.open_alerts(session)}
    assert subjects == set(WATCHED) - {"worker"}


def test_full_disk_and_old_backup_are_told(tmp_path: Path) -> None:
    config = configuration(tmp_path).model_copy(update={"disk": Disk(low_water_percent=0, low_water_gigabytes=10**6)})
    database = Database(f"sqlite:///{tmp_path / 'clearfilm.sqlite'}")
    schema.prepare(database)
    backup = tmp_path / "backups" / "clearfilm-2026-01-01.sqlite"
    backup.parent.mkdir()
    backup.touch()
    os.utime(backup, (1, 1))
    alarm(config, database).look()
    assert open_kinds(database) == {AlertKind.DISK_LOW, AlertKind.BACKUP}
    database.close()
