"""The decoder children: what a film can do to them, and what it cannot do to us."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from clearfilm.config import Config, Worker
from clearfilm.errors import NotAnalysable
from worker.decoder import DecoderPool

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def write(path: Path, syntax: UID, data: bytes, rows: int, columns: int, **changes: Any) -> Path:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3.4"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.3"
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition, ds.PatientAge = "CR", "CHEST", "PA", "054Y"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.PixelData = encapsulate([data]) if syntax.is_compressed else data
    ds["PixelData"].VR = "OB" if syntax.is_compressed else "OW"
    ds["PixelData"].is_undefined_length = syntax.is_compressed
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    dcmwrite(path, ds, enforce_file_format=True)
    return path


def picture(shared: Path, edge: int = 1024) -> NDArray[np.uint16]:
    film = cv2.imread(str(shared / "data/cxr/nih/00000679_000.jpg"), cv2.IMREAD_GRAYSCALE)
    assert film is not None
    return cv2.resize(film, (edge, edge)).astype(np.uint16) * 15


@pytest.fixture
def film(tmp_path: Path, shared: Path) -> Path:
    stored = picture(shared)
    return write(tmp_path / "film.dcm", ExplicitVRLittleEndian, stored.tobytes(), *stored.shape)


@pytest.fixture
def start() -> Iterator[Callable[..., DecoderPool]]:
    pools: list[DecoderPool] = []

    def start(**changes: Any) -> DecoderPool:
        pools.append(DecoderPool(Config(worker=Worker(**changes))))
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()


def reason(future: Future[Any]) -> str:
    with pytest.raises(NotAnalysable) as caught:
        future.result(timeout=60)
    return caught.value.reason


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)


def test_a_film_comes_back_prepared(start: Callable[..., DecoderPool], film: Path, shared: Path) -> None:
    prepared = start().submit(film).result(timeout=60)
    assert prepared.display.shape == (1024, 1024)
    assert prepared.network_input.shape == (224, 224)
    assert (prepared.facts.rows, prepared.facts.decoder, prepared.facts.voi) == (1024, "native", "percentiles")
    seen = cv2.resize(prepared.display, (224, 224), interpolation=cv2.INTER_AREA)
    sent = cv2.resize(picture(shared), (224, 224), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(seen.ravel(), sent.ravel())[0, 1] > 0.99


def test_the_edge_of_the_network_is_asked_for_per_film(start: Callable[..., DecoderPool], film: Path) -> None:
    assert start().submit(film, 320).result(timeout=60).network_input.shape == (320, 320)


def test_several_children_keep_films_apart(start: Callable[..., DecoderPool], tmp_path: Path, shared: Path) -> None:
    pool = start(decoders=2)
    stored = picture(shared)
    futures = {}
    for columns in range(700, 712):
        part = np.ascontiguousarray(stored[:, :columns])
        path = write(tmp_path / f"{columns}.dcm", ExplicitVRLittleEndian, part.tobytes(), *part.shape)
        futures[columns] = pool.submit(path)
    assert {columns: future.result(timeout=60).facts.columns for columns, future in futures.items()} == {
        columns: columns for columns in futures
    }


def test_the_gate_judges_before_anything_is_decoded(start: Callable[..., DecoderPool], tmp_path: Path) -> None:
    path = write(tmp_path / "knee.dcm", RLELossless, b"no codestream", 100, 100, BodyPartExamined="KNEE")
    assert reason(start().submit(path)) == "body part KNEE"


def test_a_missing_file_is_not_analysable(start: Callable[..., DecoderPool], tmp_path: Path) -> None:
    assert "cannot be read" in reason(start().submit(tmp_path / "gone.dcm"))


def test_a_killed_child_costs_one_retry_and_no_film(start: Callable[..., DecoderPool], film: Path) -> None:
    pool = start()
    (victim,) = pool.pids()
    os.kill(victim, signal.SIGSTOP)
    future = pool.submit(film)
    os.kill(victim, signal.SIGKILL)
    assert future.result(timeout=60).facts.rows == 1024
    assert pool.pids() != [victim]


def test_a_hanging_child_is_replaced(start: Callable[..., DecoderPool], film: Path) -> None:
    pool = start(decode_timeout_seconds=3)
    (victim,) = pool.pids()
    os.kill(victim, signal.SIGSTOP)
    assert pool.submit(film).result(timeout=60).facts.rows == 1024
    assert not psutil.pid_exists(victim)


def test_a_film_that_kills_every_child_ends_with_a_reason_and_the_next_is_served(
    start: Callable[..., DecoderPool], film: Path
) -> None:
    pool = start()
    over = threading.Event()

    def kill_all() -> None:
        while not over.is_set():
            for pid in pool.pids():
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        assert reason(pool.submit(film)) == "the decoder stopped: signal SIGKILL"
    finally:
        over.set()
        killer.join()
    assert pool.submit(film).result(timeout=60).facts.rows == 1024


def test_a_film_that_hangs_every_child_ends_with_a_reason(start: Callable[..., DecoderPool], film: Path) -> None:
    pool = start(decode_timeout_seconds=0.01)
    assert reason(pool.submit(film)) == "the decoder stopped: no answer in time"


def rle_bomb(rows: int, columns: int) -> bytes:
    """Two segments that claim every row in a few bytes each."""
    run = b"\x81\x00" * (rows * columns // 128)
    offset = 64 + len(run)
    return np.array([2, 64, offset, *[0] * 13], "<u4").tobytes() + run + run


def test_a_decompression_bomb_ends_in_its_memory_limit(
    start: Callable[..., DecoderPool], tmp_path: Path, film: Path
) -> None:
    bomb = write(tmp_path / "bomb.dcm", RLELossless, rle_bomb(16000, 16000), 16000, 16000)
    pool = start(decode_memory_megabytes=512)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = reason(pool.submit(bomb))
    assert outcome in ("decoding needs more memory than is allowed", "the compressed pixel data cannot be decoded")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert pool.submit(film).result(timeout=60).facts.rows == 1024


def test_dimensions_beyond_reason_are_refused_by_arithmetic(start: Callable[..., DecoderPool], tmp_path: Path) -> None:
    lie = write(tmp_path / "lie.dcm", RLELossless, rle_bomb(64, 64), 65535, 65535)
    assert reason(start().submit(lie)) == "the image is too large"


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("lossless", [True, False])
def test_a_jpeg_that_ends_early_is_no_film(
    start: Callable[..., DecoderPool], tmp_path: Path, shared: Path, kept: float, lossless: bool
) -> None:
    stored = picture(shared, 512)
    options = {"lossless": True, "predictor": 1} if lossless else {"level": 95}
    data = imagecodecs.jpeg8_encode(stored, bitspersample=12, **options)
    cut = data[: int(len(data) * kept)] + b"\xff\xd9"
    path = write(tmp_path / "cut.dcm", JPEGLosslessSV1 if lossless else JPEGExtended12Bit, cut, *stored.shape)
    assert reason(start().submit(path)) == "the compressed pixel data are cut off"


def test_closing_leaves_no_child_and_cancels_what_waits(film: Path) -> None:
    pool = DecoderPool(Config(worker=Worker(decode_timeout_seconds=2)))
    (child,) = pool.pids()
    os.kill(child, signal.SIGSTOP)
    futures = [pool.submit(film) for _ in range(3)]
    until(futures[0].running)
    pool.close()
    assert not [process for process in psutil.Process().children() if process.pid == child]
    assert pool.pids() == []
    assert futures[0].result(timeout=1).facts.rows == 1024
    with pytest.raises(CancelledError):
        futures[2].result(timeout=1)


def test_children_end_when_their_parent_is_killed() -> None:
    script = (
        "from clearfilm.config import Config\n"
        "from worker.decoder import DecoderPool\n"
        "import time\n"
        "pool = DecoderPool(Config())\n"
        "print(pool.pids()[0], flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not psutil.pid_exists(child))


def test_a_child_has_no_torch_no_database_and_no_sockets(start: Callable[..., DecoderPool], film: Path) -> None:
    pool = start()
    pool.submit(film).result(timeout=60)
    child = psutil.Process(pool.pids()[0])
    mapped = " ".join(region.path for region in child.memory_maps())
    assert "torch" not in mapped
    assert "sqlite" not in mapped
    assert child.net_connections() == []
    assert not any(name.startswith("CLEARFILM") for name in child.environ())
