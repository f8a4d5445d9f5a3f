"""From read films to frozen results and their outbox, on a real database and real files."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from sqlalchemy import select, update

from clearfilm.config import Config, Destination
from clearfilm.files import sha256
from clearfilm.triage import Decision
from db import intake, queue, registry, schema
from db.intake import ReceivedFilm, StudyAttributes
from db.models import (
    Analysis,
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    Job,
    JobKind,
    JobState,
    Result,
    ResultKind,
    Study,
    StudyState,
)
from db.session import Database
from tests import bundle_factories, result_factories
from worker.conclude import Concluder
from worker.leases import Leases
from worker.store import FilmMap, Store

DX, DX_RAW = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"


@dataclass
class Desk:
    """A node's database and files, before the conclusion."""

    database: Database
    store: Store
    config: Config
    study_uid: str

    def receive(self, sop_class: str = CR, **attributes: object) -> int:
        """One film; its instance number in the database. `order` and `sender` are no attributes of the header."""
        order, sender = attributes.pop("order", None), attributes.pop("sender", "demo")
        header = result_factories.header(SOPClassUID=sop_class, StudyInstanceUID=self.study_uid, **attributes)
        header.SOPInstanceUID = attributes.get("SOPInstanceUID") or generate_uid()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        buffer = io.BytesIO()
        header.save_as(buffer, enforce_file_format=True)
        path = self.store._write("films", ".dcm", buffer.getvalue())
        film = ReceivedFilm(
            study=StudyAttributes(
                study_instance_uid=self.study_uid, patient_id="P-0001", ordered_priority=order and str(order)
            ),
            sop_instance_uid=str(header.SOPInstanceUID),
            sop_class_uid=sop_class,
            series_instance_uid=str(header.SeriesInstanceUID),
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            digest=sha256(self.store.path(path)),
            size=1,
            path=path,
            sender=str(sender),
            calling_ae_title="MODALITY",
        )
        with self.database.begin() as session:
            intake.record(session, film, now=self.database.now(session), quiet=timedelta(0))
            return session.scalars(select(Instance.id).order_by(Instance.id.desc())).first() or 0

    def read(self, instance_id: int, score: float) -> None:
        """What the analysis leaves."""
        film_map = FilmMap(np.full((7, 7), 3.0, np.float32), np.full((512, 400), 90, np.uint8))
        path = self.store.write_map(film_map)
        with self.database.begin() as session:
            model = registry.active(session)
            assert model
            instance = session.get_one(Instance, instance_id)
            instance.state = InstanceState.ANALYSED
            session.add(
                Analysis(
                    instance_id=instance_id,
                    model_id=model.id,
                    score=score,
                    logit=0.0,
                    above=score >= 0.3,
                    map_path=path,
                    preprocessing_id="x",
                    device="cpu",
                    facts={},
                    created_at=self.database.now(session),
                )
            )

    def give_up(self, instance_id: int, reason: str, state: InstanceState = InstanceState.NOT_ANALYSED) -> None:
        with self.database.begin() as session:
            instance = session.get_one(Instance, instance_id)
            instance.state, instance.reason = state, reason

    def job(self) -> Job:
        """The newest conclusion."""
        of_kind = select(Job).where(Job.kind == JobKind.CONCLUDE).order_by(Job.id.desc())
        with self.database.read() as session:
            return session.scalars(of_kind).first()  # type: ignore[return-value]

    def study(self) -> Study:
        with self.database.read() as session:
            return session.scalars(select(Study)).one()

    def reports(self, revision: int) -> list[pydicom.Dataset]:
        with self.database.read() as session:
            paths = session.scalars(
                select(Result.path)
                .where(Result.revision == revision, Result.kind == ResultKind.REPORT)
                .order_by(Result.position)
            ).all()
        return [pydicom.dcmread(self.store.path(path)) for path in paths]

    @contextmanager
    def concluding(self) -> Iterator[None]:
        stop = threading.Event()
        with Leases(self.database) as leases:
            concluder = Concluder(self.config, self.database, self.store, leases)
            thread = threading.Thread(target=concluder.run, args=(stop,))
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join(timeout=30)

    def conclude(self, revision: int = 1) -> Study:
        """Run until this revision is there."""
        with self.concluding():
            await_condition(lambda: self.study().revision >= revision)
        return self.study()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield from open_desk(tmp_path)


def open_desk(tmp_path: Path) -> Iterator[Desk]:
    """A node with an active bundle and two destinations."""
    database = Database(f"sqlite:///{tmp_path / 'clearfilm.sqlite'}")
    schema.prepare(database)
    yield furnished(database, tmp_path)
    database.close()


def furnished(database: Database, tmp_path: Path) -> Desk:
    """A desk with an active bundle and two destinations."""
    digest = bundle_factories.write(tmp_path / "bundle")
    with database.begin() as session:
        now = database.now(session)
        registry.register(
            session,
            digest=digest,
            name="Test model",
            version="1",
            path=str(tmp_path / "bundle"),
            operating_point={"threshold": 0.3},
            now=now,
        )
        registry.start(session, digest, actor="test", now=now)
    destinations = tuple(Destination(name=name, ae_title="X", host="127.0.0.1", port=1) for name in ("pacs", "second"))
    config = Config(data_folder=tmp_path, destinations=destinations, study={"quiet_seconds": 0})  # type: ignore[arg-type]
    return Desk(database, Store(tmp_path), config, generate_uid())


def await_condition(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    ("score", "decision"),
    [(0.9, Decision.SIGNIFICANT_FINDING), (0.1, Decision.NO_SIGNIFICANT_FINDING)],
)
def test_a_read_film_decides_and_both_destinations_get_an_outbox(desk: Desk, score: float, decision: Decision) -> None:
    desk.read(desk.receive(), score)
    study = desk.conclude()
    assert (study.state, study.decision) == (StudyState.CONCLUDED, decision)
    assert {report.SeriesDescription for report in desk.reports(1)} == {decision.series_description}
    with desk.database.read() as session:
        assert session.scalars(select(Delivery.state)).all() == [DeliveryState.WAITING] * 8
        jobs = session.scalars(select(Job.destination).where(Job.kind == JobKind.DELIVER)).all()
        assert sorted(jobs) == ["pacs", "second"]


def test_one_film_that_was_not_analysed_keeps_the_study_from_being_clear(desk: Desk) -> None:
    desk.read(desk.receive(), 0.1)
    desk.give_up(desk.receive(), "lateral view")
    study = desk.conclude()
    assert study.decision is Decision.NOT_ANALYSED
    assert study.reason == "1 of 2 films not analysed: lateral view"


def test_a_film_that_failed_is_not_analysed_and_the_study_still_ends(desk: Desk) -> None:
    desk.give_up(desk.receive(), "analysis failed: worker died", InstanceState.FAILED)
    study = desk.conclude()
    assert study.decision is Decision.NOT_ANALYSED
    assert "worker died" in (study.reason or "")


def test_a_significant_film_outweighs_one_that_was_not_analysed(desk: Desk) -> None:
    desk.read(desk.receive(), 0.9)
    desk.give_up(desk.receive(), "lateral view")
    assert desk.conclude().decision is Decision.SIGNIFICANT_FINDING


@pytest.mark.parametrize(
    ("view", "decision"),
    [("PA", Decision.NO_SIGNIFICANT_FINDING), ("LL", Decision.NOT_ANALYSED)],
)
def test_for_processing_film_counts_unless_its_twin_was_read(desk: Desk, view: str, decision: Decision) -> None:
    acquired = {"AcquisitionDate": "20260101", "AcquisitionTime": "101500"}
    desk.read(desk.receive(DX, ViewPosition="PA", **acquired), 0.1)
    desk.give_up(desk.receive(DX_RAW, ViewPosition=view, **acquired), "For Processing image")
    assert desk.conclude().decision is decision


def test_for_processing_film_that_a_film_names_as_its_source_does_not_count(desk: Desk) -> None:
    source = pydicom.Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = DX_RAW, "1.2.3.9"
    desk.read(desk.receive(DX, SourceImageSequence=[source]), 0.1)
    desk.give_up(desk.receive(DX_RAW, SOPInstanceUID="1.2.3.9"), "For Processing image")
    assert desk.conclude().decision is Decision.NO_SIGNIFICANT_FINDING


def test_nothing_is_concluded_while_a_film_waits_for_its_reading(desk: Desk) -> None:
    desk.read(desk.receive(), 0.1)
    waiting = desk.receive()
    with desk.concluding():
        await_condition(lambda: not _open_conclusions(desk))
    assert desk.study().revision == 0
    desk.give_up(waiting, "lateral view")
    with desk.database.begin() as session:
        now = desk.database.now(session)
        queue.request_conclusion(session, desk.study().id, run_after=now, now=now)
    assert desk.conclude().decision is Decision.NOT_ANALYSED


def test_late_film_makes_a_revision_that_names_the_report_that_was_sent(desk: Desk) -> None:
    desk.read(desk.receive(), 0.1)
    desk.conclude()
    first = desk.reports(1)[0]
    with desk.database.begin() as session:
        chosen = session.scalars(select(Result.id).where(Result.sop_instance_uid == first.SOPInstanceUID)).one()
        session.execute(update(Delivery).where(Delivery.result_id == chosen).values(state=DeliveryState.SENT))
    desk.read(desk.receive(), 0.9)
    study = desk.conclude(2)
    assert study.decision is Decision.SIGNIFICANT_FINDING
    second = desk.reports(2)[0]
    predecessor = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert second.SOPInstanceUID != first.SOPInstanceUID


def test_a_conclusion_that_was_asked_for_before_the_present_one_repeats_nothing(desk: Desk) -> None:
    """The end of an analysis queues one, also if one that was claimed just before sees its film already."""
    film = desk.receive()
    with Leases(desk.database) as leases:
        concluder = Concluder(desk.config, desk.database, desk.store, leases)
        first = concluder._claim()
        desk.read(film, 0.1)
        with desk.database.begin() as session:
            now = desk.database.now(session)
            queue.request_conclusion(session, desk.study().id, run_after=now, now=now)
        assert first
        concluder._conclude(first)
        second = concluder._claim()
        assert second
        concluder._conclude(second)
    assert desk.study().revision == 1
    assert desk.job().state is JobState.DONE


def test_results_that_nobody_has_seen_are_superseded_by_a_newer_revision(desk: Desk) -> None:
    desk.read(desk.receive(), 0.1)
    desk.conclude()
    desk.read(desk.receive(), 0.9)
    desk.conclude(2)
    with desk.database.read() as session:
        old = select(Result.id).where(Result.revision == 1)
        states = set(session.scalars(select(Delivery.state).where(Delivery.result_id.in_(old))))
        jobs = session.scalars(
            select(Job.revision).where(Job.kind == JobKind.DELIVER, Job.state == JobState.QUEUED)
        ).all()
    assert states == {DeliveryState.SUPERSEDED}
    assert set(jobs) == {2}
    assert "PredecessorDocumentsSequence" not in desk.reports(2)[0]


def test_films_of_an_earlier_bundle_are_read_again_before_a_new_conclusion(desk: Desk, tmp_path: Path) -> None:
    old = desk.receive()
    desk.read(old, 0.1)
    digest = bundle_factories.write(tmp_path / "newer", "2")
    with desk.database.begin() as session:
        now = desk.database.now(session)
        registry.register(
            session,
            digest=digest,
            name="Test model",
            version="2",
            path=str(tmp_path / "newer"),
            operating_point={"threshold": 0.3},
            now=now,
        )
        registry.switch(session, registry.find(session, digest[:12]), rollback=False, now=now)
    with desk.concluding():
        await_condition(lambda: not _open_conclusions(desk))
    with desk.database.read() as session:
        assert session.get_one(Instance, old).state is InstanceState.QUEUED
        assert desk.study().revision == 0


def test_what_a_shadow_has_read_decides_nothing_and_is_read_again_when_it_becomes_active(
    desk: Desk, tmp_path: Path
) -> None:
    film = desk.receive()
    desk.read(film, 0.1)
    digest = bundle_factories.write(tmp_path / "shadow", "2")
    with desk.database.begin() as session:
        now = desk.database.now(session)
        shadow = registry.register(
            session,
            digest=digest,
            name="Test model",
            version="2",
            path=str(tmp_path / "shadow"),
            operating_point={"threshold": 0.3},
            now=now,
        )
        session.add(
            Analysis(
                instance_id=film, model_id=shadow.id, score=0.9, logit=2.0, above=True, shadow=True, map_path=None,
                preprocessing_id="x", device="cpu", facts={}, created_at=now,
            )
        )  # fmt: skip
    assert desk.conclude().decision is Decision.NO_SIGNIFICANT_FINDING
    with desk.database.begin() as session:
        now = desk.database.now(session)
        registry.switch(session, registry.find(session, digest), rollback=False, now=now)
        queue.request_conclusion(session, desk.study().id, run_after=now, now=now)
    with desk.concluding():
        await_condition(lambda: not _open_conclusions(desk))
    with desk.database.read() as session:
        assert session.get_one(Instance, film).state is InstanceState.QUEUED
    assert desk.study().revision == 1


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_film_whose_heatmap_is_damaged_is_read_again(desk: Desk, damage: str) -> None:
    film = desk.receive()
    desk.read(film, 0.9)
    with desk.database.read() as session:
        path = desk.store.path(session.scalars(select(Analysis.map_path)).one())
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000])
    with desk.concluding():
        await_condition(lambda: not _open_conclusions(desk))
    with desk.database.read() as session:
        assert session.get_one(Instance, film).state is InstanceState.QUEUED
    desk.read(film, 0.9)
    with desk.database.begin() as session:
        now = desk.database.now(session)
        queue.request_conclusion(session, desk.study().id, run_after=now, now=now)
    assert desk.conclude().decision is Decision.SIGNIFICANT_FINDING


def test_missing_bundle_postpones_the_conclusion_without_a_strike(desk: Desk, tmp_path: Path) -> None:
    desk.read(desk.receive(), 0.1)
    (tmp_path / "bundle").rename(tmp_path / "elsewhere")
    with desk.concluding():
        await_condition(lambda: desk.job().retries == 1)
    assert (desk.job().state, desk.job().attempts) == (JobState.QUEUED, 0)
    assert "bundle" in (desk.job().last_error or "")


def test_no_new_conclusion_while_an_earlier_one_is_on_the_wire(desk: Desk) -> None:
    desk.read(desk.receive(), 0.1)
    desk.conclude()
    with desk.database.begin() as session:
        now = desk.database.now(session)
        running = queue.claim(session, JobKind.DELIVER, destination="pacs", owner="courier", now=now)
    assert running
    desk.read(desk.receive(), 0.9)
    with desk.concluding():
        await_condition(lambda: desk.job().retries >= 1)
        assert desk.study().revision == 1
        with desk.database.begin() as session:
            queue.finish(session, running, now=desk.database.now(session))
        await_condition(lambda: desk.study().revision == 2)


def _open_conclusions(desk: Desk) -> bool:
    with desk.database.read() as session:
        jobs = select(Job.id).where(Job.kind == JobKind.CONCLUDE, Job.state.in_([JobState.QUEUED, JobState.RUNNING]))
        return session.scalars(jobs).first() is not None
