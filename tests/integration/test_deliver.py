"""Results reach a PACS in order, once, and not at all only visibly."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import SecondaryCaptureImageStorage  # type: ignore[attr-defined]
from sqlalchemy import select

from clearfilm.config import Destination
from clearfilm.dicom.rehearsal import REPORT_PREFERENCE
from clearfilm.triage import Decision
from cli import test_pacs
from db import deliveries, peer_checks, queue, schema, switches
from db.models import Delivery, DeliveryState, Job, JobKind, JobState, Result, ResultKind, Study
from db.peer_checks import PeerCheck
from db.session import Database
from db.switches import Stage
from worker.commitment import Notary
from worker.deliver import Courier
from worker.leases import Leases
from worker.store import Store

SC = str(SecondaryCaptureImageStorage)


@dataclass
class Outbox:
    """A node's database and results, with one concluded study."""

    database: Database
    store: Store
    study_uid: str
    uids: list[str]

    def states(self) -> list[DeliveryState]:
        with self.database.read() as session:
            return list(session.scalars(select(Delivery.state).order_by(Delivery.id)))

    def job(self) -> Job:
        with self.database.read() as session:
            return session.scalars(select(Job).order_by(Job.id.desc())).first()  # type: ignore[return-value]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    database = Database(f"sqlite:///{tmp_path / 'clearfilm.sqlite'}")
    schema.prepare(database)
    store = Store(tmp_path)
    study_uid, uids = generate_uid(), []
    with database.begin() as session:
        now = database.now(session)
        study = Study(study_instance_uid=study_uid, revision=1, first_received_at=now, last_received_at=now)
        session.add(study)
        session.flush()
        for position, sop_class in enumerate((SC, *REPORT_PREFERENCE)):
            content = _object(sop_class, study_uid)
            uid = str(pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)).SOPInstanceUID)
            uids.append(uid)
            result = Result(
                study_id=study.id,
                revision=1,
                kind=ResultKind.SECONDARY_CAPTURE if sop_class == SC else ResultKind.REPORT,
                sop_class_uid=sop_class,
                sop_instance_uid=uid,
                series_instance_uid=generate_uid(),
                transfer_syntax_uid=str(ExplicitVRLittleEndian),
                position=position,
                path=store.write_result(content),
                digest=hashlib.sha256(content).hexdigest(),
                decision=Decision.SIGNIFICANT_FINDING,
                created_at=now,
            )
            session.add(result)
            session.flush()
            session.add(Delivery(result_id=result.id, destination="pacs", created_at=now))
        queue.add(session, JobKind.DELIVER, study_id=study.id, destination="pacs", revision=1, now=now)
    yield Outbox(database, store, study_uid, uids)
    database.close()


@contextmanager
def courier(
    outbox: Outbox, port: int, *, pause: timedelta = timedelta(seconds=0.05), **settings: Any
) -> Iterator[None]:
    """A running courier that tries again after `pause`."""
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "timeout_seconds": 5} | settings
    destination = Destination(port=port, **values)
    stop = threading.Event()
    with Leases(outbox.database) as leases:
        running = Courier(destination, "CLEARFILM", outbox.database, outbox.store, leases, lambda _: pause)
        loops = [running.run]
        if destination.storage_commitment:
            loops.append(Notary(destination, "CLEARFILM", outbox.database).run)
        threads = [threading.Thread(target=loop, args=(stop,)) for loop in loops]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(timeout=30)


@contextmanager
def peer(port: int = 0, *, classes: tuple[str, ...], answer: Callable[[Any], int]) -> Iterator[int]:
    """A PACS that takes only `classes` and answers as told."""
    ae = AE("PACS")
    for uid in classes:
        ae.add_supported_context(uid)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    assert server
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def await_condition(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def test_capture_goes_before_the_report_in_the_preferred_class(outbox: Outbox, tmp_path: Path) -> None:
    with test_pacs.running(tmp_path / "pacs", "PACS", "127.0.0.1", 0) as (pacs, port), courier(outbox, port):
        await_condition(lambda: outbox.job().state is JobState.DONE)
        await_condition(lambda: outbox.states().count(DeliveryState.COMMITTED) == 2)
    order = [path.stem for path in sorted(pacs.objects(outbox.study_uid), key=lambda path: path.stat().st_mtime_ns)]
    assert order == outbox.uids[:2]


@pytest.mark.parametrize("accepted", [1, 2])
def test_report_falls_back_to_the_class_that_the_peer_takes(outbox: Outbox, accepted: int) -> None:
    got: list[str] = []

    def store(event: Any) -> int:
        got.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    with peer(classes=(SC, REPORT_PREFERENCE[accepted]), answer=store) as port, courier(outbox, port):
        await_condition(lambda: outbox.job().state is JobState.DONE)
    assert got == [outbox.uids[0], outbox.uids[1 + accepted]]


def test_stored_bytes_go_out_unchanged(outbox: Outbox, tmp_path: Path) -> None:
    with test_pacs.running(tmp_path / "pacs", "PACS", "127.0.0.1", 0) as (pacs, port), courier(outbox, port):
        await_condition(lambda: len(pacs.objects(outbox.study_uid)) == 2)
        await_condition(lambda: outbox.job().state is JobState.DONE)
    with outbox.database.read() as session:
        frozen = outbox.store.path(session.scalars(select(Result.path).order_by(Result.id)).first() or "")
    sent = next(path for path in pacs.objects(outbox.study_uid) if path.stem == outbox.uids[0])
    assert _data_set(sent) == _data_set(frozen)


def test_absent_peer_is_no_failure_and_gets_everything_when_it_is_back(outbox: Outbox, tmp_path: Path) -> None:
    with test_pacs.running(tmp_path / "gone", "PACS", "127.0.0.1", 0) as (_, port):
        pass
    with courier(outbox, port):
        await_condition(lambda: outbox.job().retries >= 3)
        assert outbox.states() == [DeliveryState.WAITING] * 4
        with test_pacs.running(tmp_path / "pacs", "PACS", "127.0.0.1", port) as (pacs, _):
            await_condition(lambda: len(pacs.objects(outbox.study_uid)) == 2)
            await_condition(lambda: outbox.job().state is JobState.DONE)


def test_an_answer_to_an_administrator_ends_the_pause(outbox: Outbox, tmp_path: Path) -> None:
    with test_pacs.running(tmp_path / "gone", "PACS", "127.0.0.1", 0) as (_, port):
        pass
    with courier(outbox, port, pause=timedelta(hours=1)):
        await_condition(lambda: outbox.job().retries == 1)
        with test_pacs.running(tmp_path / "pacs", "PACS", "127.0.0.1", port) as (pacs, _):
            with outbox.database.begin() as session:
                now = outbox.database.now(session)
                check = PeerCheck(
                    destination="pacs", kind="echo", good=True, message="", detail={}, actor="ann", at=now
                )
                peer_checks.keep(session, check)
                deliveries.wake(session, "pacs", now=now)
            await_condition(lambda: len(pacs.objects(outbox.study_uid)) == 2)


def test_busy_peer_is_tried_again(outbox: Outbox) -> None:
    answers = iter([0xA700, 0xA700, 0xA700, 0xA700, 0x0000, 0xB000])

    with peer(classes=(SC, *REPORT_PREFERENCE), answer=lambda _: next(answers)) as port, courier(outbox, port):
        await_condition(lambda: outbox.job().state is JobState.DONE)
    assert outbox.states()[:2] == [DeliveryState.SENT, DeliveryState.SENT]
    with outbox.database.read() as session:
        assert session.scalars(select(Delivery.dicom_status).order_by(Delivery.id)).all()[:2] == [0, 0xB000]


def test_third_permanent_refusal_fails_visibly_and_a_resend_revives_it(outbox: Outbox, tmp_path: Path) -> None:
    with peer(classes=(SC, *REPORT_PREFERENCE), answer=lambda _: 0xC123) as port, courier(outbox, port):
        await_condition(lambda: outbox.job().state is JobState.FAILED)
    assert outbox.states() == [DeliveryState.FAILED] * 4
    with outbox.database.read() as session:
        row = session.scalars(select(Delivery)).first()
        assert row
        assert (row.refusals, row.dicom_status) == (3, 0xC123)
        assert "0xC123" in (row.last_error or "")
    with outbox.database.begin() as session:
        study = session.scalars(select(Study)).one()
        deliveries.resend(session, study, ["pacs"], actor="test", now=outbox.database.now(session))
    with test_pacs.running(tmp_path / "pacs", "PACS", "127.0.0.1", 0) as (pacs, port), courier(outbox, port):
        await_condition(lambda: outbox.job().state is JobState.DONE)
        assert len(pacs.objects(outbox.study_uid)) == 2


def test_refused_capture_does_not_hold_the_report_back(outbox: Outbox) -> None:
    got: list[str] = []

    def store(event: Any) -> int:
        got.append(str(event.request.AffectedSOPClassUID))
        return 0xA900 if got[-1] == SC else 0x0000

    with peer(classes=(SC, *REPORT_PREFERENCE), answer=store) as port, courier(outbox, port):
        await_condition(lambda: outbox.job().state is JobState.FAILED)
    assert outbox.states() == [
        DeliveryState.FAILED,
        DeliveryState.SENT,
        DeliveryState.NOT_CHOSEN,
        DeliveryState.NOT_CHOSEN,
    ]
    assert got == [SC, REPORT_PREFERENCE[0], SC, SC]


def test_report_that_is_refused_by_status_goes_out_in_the_next_class(outbox: Outbox) -> None:
    def store(event: Any) -> int:
        return 0x0122 if event.request.AffectedSOPClassUID == REPORT_PREFERENCE[0] else 0x0000

    with peer(classes=(SC, *REPORT_PREFERENCE), answer=store) as port, courier(outbox, port):
        await_condition(lambda: outbox.job().state is JobState.DONE)
    assert outbox.states() == [
        DeliveryState.SENT,
        DeliveryState.NOT_CHOSEN,
        DeliveryState.SENT,
        DeliveryState.NOT_CHOSEN,
    ]


def test_older_conclusion_is_not_sent_after_a_newer_one(outbox: Outbox) -> None:
    """The late film came while the older report was refused for the time being."""
    answers = iter([0x0000, 0xA700])

    def store(_: Any) -> int:
        status = next(answers, 0x0000)
        if status:
            with outbox.database.begin() as session:
                session.scalars(select(Study)).one().revision = 2
        return status

    with peer(classes=(SC, *REPORT_PREFERENCE), answer=store) as port, courier(outbox, port):
        await_condition(lambda: outbox.job().state is JobState.DONE)
    assert outbox.states() == [DeliveryState.SENT, *[DeliveryState.SUPERSEDED] * 3]


def test_name_that_cannot_be_resolved_is_an_absent_peer(outbox: Outbox) -> None:
    with courier(outbox, 104, host="no-such-host.invalid"):
        await_condition(lambda: outbox.job().retries >= 4)
    assert outbox.states() == [DeliveryState.WAITING] * 4
    assert "has no address" in (outbox.job().last_error or "")


def test_peer_that_takes_no_report_at_all_is_a_refusal(outbox: Outbox) -> None:
    with peer(classes=(SC,), answer=lambda _: 0x0000) as port, courier(outbox, port):
        await_condition(lambda: outbox.job().state is JobState.FAILED)
    assert "presentation context" in (outbox.job().last_error or "")
    assert outbox.states()[0] is DeliveryState.SENT


def test_what_the_peer_does_not_commit_to_is_sent_again(outbox: Outbox, tmp_path: Path) -> None:
    with test_pacs.running(tmp_path / "pacs", "PACS", "127.0.0.1", 0) as (pacs, port):
        with courier(outbox, port, storage_commitment=False):
            await_condition(lambda: outbox.job().state is JobState.DONE)
        assert DeliveryState.COMMITTED not in outbox.states()
        for path in pacs.objects(outbox.study_uid):
            path.unlink()
        with courier(outbox, port):
            await_condition(lambda: outbox.states().count(DeliveryState.COMMITTED) == 2)
        assert len(pacs.objects(outbox.study_uid)) == 2


def _object(sop_class: str, study_uid: str) -> bytes:
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID = sop_class, generate_uid(), study_uid
    ds.PatientName, ds.PatientID, ds.SeriesDescription = "TEST^DELIVERY", "1", "test"
    buffer = pydicom.filebase.DicomBytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return bytes(buffer.getvalue())


def _data_set(path: Path) -> bytes:
    """The bytes after the file meta information."""
    content = path.read_bytes()
    meta = pydicom.filereader.read_file_meta_info(path)
    return content[132 + 12 + meta.FileMetaInformationGroupLength :]


def test_paused_sending_calls_nobody_until_it_is_resumed(outbox: Outbox, tmp_path: Path) -> None:
    database = outbox.database
    with database.begin() as session:
        switches.pause(session, Stage.SEND, reason="PACS update", actor="ann", now=database.now(session))
    calls: list[object] = []
    answer = peer(classes=(SC, *REPORT_PREFERENCE), answer=lambda event: calls.append(event) or 0)
    with answer as port, courier(outbox, port):
        threading.Event().wait(0.5)  # two polls and more
        assert outbox.job().state is JobState.QUEUED
        assert not calls
        with database.begin() as session:
            switches.resume(session, Stage.SEND, actor="ann", now=database.now(session))
        await_condition(lambda: outbox.job().state is JobState.DONE)
    assert len(calls) == 2
