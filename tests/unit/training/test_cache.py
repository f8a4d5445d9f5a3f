"""Arrays in files: computed once, whole or absent."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clearfilm.dicom.pixels import network_input
from clearfilm.errors import StorageError, TrainingError
from clearfilm.files import sha256
from storescp.storage import Origin, file_prefix
from tests.cohort_factories import NoDecoder, picture, small_cohort
from training.cache import decode, stored
from training.films import film_digest, prepare_picture
from training.progress import Silent


def rows(count: int) -> Iterator[np.ndarray]:
    for number in range(count):
        yield np.full(4, number, np.uint8)


def test_array_is_computed_once(tmp_path: Path) -> None:
    first = stored(tmp_path / "a.npy", (3, 4), np.dtype(np.uint8), rows(3))
    again = stored(tmp_path / "a.npy", (3, 4), np.dtype(np.uint8), iter(()))
    assert np.array_equal(first, again)
    assert first[2].tolist() == [2, 2, 2, 2]


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield np.zeros(4, np.uint8)
        raise TrainingError("no")

    with pytest.raises(TrainingError):
        stored(tmp_path / "a.npy", (3, 4), np.dtype(np.uint8), broken())
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_named_before_work_begins(tmp_path: Path) -> None:
    started = []

    def counted() -> Iterator[np.ndarray]:
        started.append(1)
        yield np.zeros(1, np.uint8)

    with pytest.raises(StorageError, match="GB"):
        stored(tmp_path / "a.npy", (1 << 50, 1), np.dtype(np.uint8), counted())
    assert not started
    assert list(tmp_path.iterdir()) == []


def test_films_outside_training_are_exactly_what_the_worker_sees(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    store = decode(cohort, 64, tmp_path / "cache", NoDecoder(), Silent())
    for place in cohort.of("test"):
        assert np.array_equal(store.film(place), prepare_picture(cohort.path(cohort.films[place]), 64).network_input)
    assert store.wide.shape == (len(cohort.of("train")), 72, 72)
    assert store.film(cohort.of("train")[0]).shape == (64, 64)


def test_picture_is_prepared_like_a_displayed_film(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    display = prepare_picture(cohort.path(cohort.films[0]), 64)
    assert np.array_equal(display.network_input, network_input(display.display, 64))
    assert display.display.shape == picture(abnormal=False, seed=0).shape


def test_altered_films_are_named_with_counts(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    first, second = (cohort.films[place] for place in cohort.of("train")[:2])
    cohort.path(first).write_bytes(cohort.path(second).read_bytes())
    cohort.path(second).unlink()
    with pytest.raises(TrainingError, match="2 of 8 films are not what they were"):
        decode(cohort, 64, tmp_path / "cache", NoDecoder(), Silent())


def test_films_that_were_moved_are_missing_and_may_be_named(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    cohort.root.rename(tmp_path / "elsewhere")
    with pytest.raises(TrainingError, match=r"missing.*--films"):
        decode(cohort, 64, tmp_path / "cache", NoDecoder(), Silent())


def test_digest_of_an_archives_film_is_that_of_the_data_set_as_received(tmp_path: Path) -> None:
    origin = Origin("demo", "MODALITY", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3", "1.2.840.10008.1.2.1")
    path = tmp_path / "film.dcm"
    path.write_bytes(file_prefix(origin) + b"data set")
    assert film_digest(path, "archive") == hashlib.sha256(b"data set").hexdigest()
    path.write_bytes(file_prefix(origin) + b"data sat")
    assert film_digest(path, "archive") != hashlib.sha256(b"data set").hexdigest()
    assert film_digest(path, "folder") == sha256(path)


def test_leftovers_of_killed_runs_are_removed_but_not_those_in_use(tmp_path: Path) -> None:
    (tmp_path / ".old.123.npy").write_bytes(b"rest")

    def during() -> Iterator[np.ndarray]:
        for row in rows(3):
            stored(tmp_path / "inner.npy", (3, 4), np.dtype(np.uint8), rows(3))
            yield row

    assert stored(tmp_path / "outer.npy", (3, 4), np.dtype(np.uint8), during())[2, 0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner.npy", "outer.npy"]
