"""Silent reading with real networks: what it keeps, what it never touches, and how it ends."""

import os
import queue
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import select

from clearfilm.config import Config, Heatmap, Worker
from clearfilm.vision.bundle import load_bundle
from clearfilm.vision.engine import Engine
from db import intake, overview, registry, schema
from db import queue as jobs
from db.intake import ReceivedFilm, StudyAttributes
from db.models import Analysis, Instance, InstanceState, JobKind, ModelBundle, ModelState
from db.session import Database
from tests import bundle_factories
from worker.decoder import DecoderPool
from worker.shadow import Shadows
from worker.shadow_child import Shadow, describe, films_wait

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "06-cr-mass.dcm"
EDGE = 64


@dataclass
class Room:
    """A node with an active bundle and a shadow."""

    folder: Path
    database: Database
    config: Config
    shadow_id: int
    films: int = 0
    offers: "queue.Queue[tuple[int, np.ndarray]]" = field(default_factory=queue.Queue)

    def film(self, *, read: bool = True) -> int:
        """A stored film, read by the active bundle unless it still waits."""
        self.films += 1
        path = f"films/{self.films}.dcm"
        (self.folder / "films").mkdir(exist_ok=True)
        shutil.copyfile(SAMPLE, self.folder / path)
        received = ReceivedFilm(
            study=StudyAttributes(study_instance_uid=f"1.{self.films}"),
            sop_instance_uid=f"1.{self.films}.1",
            sop_class_uid="1.2",
            series_instance_uid=None,
            transfer_syntax_uid="1.2",
            digest=f"{self.films:064}",
            size=1,
            path=path,
            sender="demo",
            calling_ae_title="X",
        )
        with self.database.begin() as session:
            now = self.database.now(session)
            intake.record(session, received, now=now, quiet=timedelta(hours=1))
            film = session.scalars(select(Instance).order_by(Instance.id.desc())).first()
            assert film
            if read:
                job = jobs.claim(session, JobKind.ANALYSE, owner="test", now=now)
                assert job
                jobs.finish(session, job, now=now)
                film.state = InstanceState.ANALYSED
                active = registry.active(session)
                assert active
                session.add(
                    Analysis(
                        instance_id=film.id, model_id=active.id, score=0.1, logit=-2.0, above=False, map_path="m",
                        preprocessing_id="x", device="cpu", facts={}, created_at=now,
                    )
                )  # fmt: skip
            return film.id

    def readings(self) -> list[Analysis]:
        with self.database.read() as session:
            found = select(Analysis).where(Analysis.model_id == self.shadow_id).order_by(Analysis.instance_id)
            return list(session.scalars(found))

    def bundle(self) -> ModelBundle:
        with self.database.read() as session:
            return session.get_one(ModelBundle, self.shadow_id)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The shadow at work in this process."""
        stop = threading.Event()
        shadow = Shadow(self.config, self.database, self.shadow_id, self.offers)
        thread = threading.Thread(target=shadow.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=60)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    weights = bundle_factories.random_weights()
    small = bundle_factories.description("shadow").model_copy(update={"input_edge": EDGE})
    bundle_factories.write_network(folder / "shadow", weights, small)
    broken = {**weights, "fc.weight": torch.full_like(weights["fc.weight"], float("nan"))}
    bundle_factories.write_network(folder / "broken", broken, small.model_copy(update={"version": "broken"}))
    return folder


@pytest.fixture
def room(tmp_path: Path, bundles: Path) -> Iterator[Room]:
    database = Database(f"sqlite:///{tmp_path / 'clearfilm.sqlite'}")
    schema.prepare(database)
    first = bundle_factories.write(tmp_path / "active")
    with database.begin() as session:
        add(session, first, tmp_path / "active", database)
        registry.start(session, first, actor="test", now=database.now(session))
    config = Config(data_folder=tmp_path, worker=Worker(device="cpu", precision="fp32"))
    yield Room(tmp_path, database, config, shadowing(database, bundles / "shadow"))
    database.close()


def add(session: object, digest: str, folder: Path, database: Database) -> ModelBundle:
    return registry.register(
        session,  # type: ignore[arg-type]
        digest=digest,
        name="Test model",
        version=folder.name,
        path=str(folder),
        operating_point={"threshold": 0.3},
        now=database.now(session),  # type: ignore[arg-type]
    )


def shadowing(database: Database, folder: Path) -> int:
    with database.begin() as session:
        row = add(session, load_bundle(folder).digest, folder, database)
        registry.begin_shadow(session, row, actor="Anna", now=database.now(session))
        return row.id


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_shadow_reads_what_the_active_bundle_has_read_and_keeps_only_its_score(room: Room) -> None:
    film = room.film()
    with room.reading():
        until(lambda: len(room.readings()) == 1)
    reading = room.readings()[0]
    with DecoderPool(room.config) as decoders:
        prepared = decoders.submit(room.folder / f"films/{room.films}.dcm", EDGE).result()
    engine = Engine(load_bundle(Path(room.bundle().path)), room.config.worker, Heatmap())
    expected = engine.run(np.stack([prepared.network_input]))[0]
    assert (reading.instance_id, reading.shadow, reading.map_path) == (film, True, None)
    assert reading.score == pytest.approx(expected.score, abs=1e-4)
    assert reading.facts["unusual"] is expected.unusual
    assert not (room.folder / "maps").exists()


def test_film_that_was_handed_over_is_not_prepared_again(room: Room) -> None:
    film = room.film()
    (room.folder / f"films/{room.films}.dcm").unlink()
    room.offers.put((film, np.full((EDGE, EDGE), 100, np.uint8)))
    with room.reading():
        until(lambda: len(room.readings()) == 1)
    assert room.readings()[0].facts["prepared_once"] is True


def test_film_that_is_gone_does_not_hold_up_the_others(room: Room) -> None:
    room.film()
    (room.folder / f"films/{room.films}.dcm").unlink()
    film = room.film()
    with room.reading():
        until(lambda: len(room.readings()) == 1)
    assert room.readings()[0].instance_id == film


def test_nothing_is_read_silently_while_a_film_waits(room: Room) -> None:
    room.film()
    room.film(read=False)
    with room.database.begin() as session:
        now = room.database.now(session)
        assert films_wait(session, now)
        job = jobs.claim(session, JobKind.ANALYSE, owner="test", now=now)
        assert job
        assert films_wait(session, now)
    with room.reading():
        with room.database.begin() as session:
            end = room.database.now(session)
            jobs.finish(session, job, now=end)
            assert not films_wait(session, end)
        until(lambda: len(room.readings()) == 1)
    assert room.readings()[0].created_at >= end


def test_shadow_ends_when_it_is_no_shadow_any_more(room: Room) -> None:
    shadow = Shadow(room.config, room.database, room.shadow_id, room.offers)
    thread = threading.Thread(target=shadow.run, args=(threading.Event(),))
    thread.start()
    with room.database.begin() as session:
        row = registry.find(session, room.bundle().digest)
        assert registry.end_shadow(session, row, actor="Anna", now=room.database.now(session))
    thread.join(timeout=30)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (ValueError(), "ValueError"),
    ],
)
def test_reason_is_in_plain_words(error: BaseException, words: str) -> None:
    assert describe(error) == words


def test_broken_shadow_is_switched_off_with_its_reason_and_a_killed_one_too(room: Room, bundles: Path) -> None:
    """Real processes: one gives no numbers, the other is killed; the active bundle keeps its state."""
    broken = shadowing(room.database, bundles / "broken")
    room.film()
    stop = threading.Event()
    shadows = Shadows(room.config, room.database)
    thread = threading.Thread(target=shadows.run, args=(stop,))
    thread.start()
    try:
        until(lambda: _note(room, broken) is not None)
        until(lambda: len(room.readings()) == 1)
        os.kill(shadows.pids()[room.shadow_id], signal.SIGKILL)
        until(lambda: _note(room, room.shadow_id) is not None)
    finally:
        stop.set()
        thread.join(timeout=60)
    assert _note(room, broken) == "the bundle's network gave a score that is no number"
    assert "killed, out of memory perhaps" in (_note(room, room.shadow_id) or "")
    assert room.bundle().state is ModelState.CANDIDATE
    with room.database.read() as session:
        told = overview.counts(session, now=room.database.now(session))
    assert told["model"]["version"] == "active"
    assert {shadow["version"]: shadow["reads"] for shadow in told["shadows"]} == {"broken": False, "shadow": False}
    assert {shadow["version"]: shadow["films"] for shadow in told["shadows"]} == {"broken": 0, "shadow": 1}


def _note(room: Room, number: int) -> str | None:
    with room.database.read() as session:
        return session.get_one(ModelBundle, number).shadow_note
