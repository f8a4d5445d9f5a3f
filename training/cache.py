"""Decoded films and what the frozen part of a network makes of them, kept as memory-mapped arrays.

Epochs then cost no decoding, and several runs on one cohort share the work.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clearfilm.dicom.preprocessing import preprocessing_hash
from clearfilm.errors import NotAnalysable, OutOfSpace, StorageError, TrainingError
from clearfilm.files import fsync_folder
from training.augment import shrink, wide_edge
from training.cohort import Cohort
from training.films import Decoder, film_digest, prepared
from training.progress import Watcher, watched

_NAMED: Final = 3


@dataclass(frozen=True, eq=False)
class Store:
    """Decoded films of a cohort.

    Parameters
    ----------
    edge : int
        Side of the network's input, pixels.
    wide : numpy.ndarray
        uint8, films of the part "train", somewhat larger than `edge` for `training.augment`.
    exact : numpy.ndarray
        uint8, shape ``(n, edge, edge)``: all other films, exactly as the worker would see them.
    rows : dict
        Place of a film in the cohort to its row in its array.
    """

    edge: int
    wide: NDArray[np.uint8]
    exact: NDArray[np.uint8]
    rows: dict[int, int]
    training: frozenset[int]

    def wide_film(self, place: int) -> NDArray[np.uint8]:
        """A training film for augmentation."""
        return self.wide[self.rows[place]]

    def film(self, place: int) -> NDArray[np.uint8]:
        """Any film at the network's size."""
        if place in self.training:
            return shrink(self.wide_film(place), self.edge)
        return self.exact[self.rows[place]]


def decode(cohort: Cohort, edge: int, folder: Path, decoder: Decoder, watcher: Watcher) -> Store:
    """Decode a cohort's films once; later calls map the same files.

    Parameters
    ----------
    cohort : Cohort
    edge : int
        Side of the network's input, pixels.
    folder : pathlib.Path
        For the arrays: about ``films × edge²`` bytes.
    decoder : Decoder
    watcher : Watcher

    Returns
    -------
    Store

    Raises
    ------
    TrainingError
        If films are missing, altered or do not decode any more; with counts.
    StorageError
        If there is no room for the arrays.
    """
    training = cohort.of("train")
    others = cohort.of("stop", "calibrate", "test", "temporal")
    name = f"{cohort.digest[:16]}-{preprocessing_hash()[:8]}-{edge}"
    wide = _films(cohort, training, wide_edge(edge), folder / f"{name}-train.npy", decoder, watcher)
    exact = _films(cohort, others, edge, folder / f"{name}-others.npy", decoder, watcher)
    rows = {place: row for places in (training, others) for row, place in enumerate(places)}
    return Store(edge=edge, wide=wide, exact=exact, rows=rows, training=frozenset(training))


def _films(
    cohort: Cohort, places: Sequence[int], edge: int, path: Path, decoder: Decoder, watcher: Watcher
) -> NDArray[np.uint8]:
    films = [cohort.films[place] for place in places]

    def pictures() -> Iterator[NDArray[np.uint8]]:
        faults: list[str] = []
        decoded = prepared([cohort.path(film) for film in films], edge, decoder)
        for film, picture in zip(films, watched(decoded, "decoding films", len(films), watcher), strict=True):
            if isinstance(picture, NotAnalysable):
                is_there = cohort.path(film).is_file()
                faults.append(f"{film.file}: {picture.reason if is_there else 'missing'}")
                continue
            if film_digest(cohort.path(film), cohort.manifest.source) != film.sha256:
                faults.append(f"{film.file}: altered")
                continue
            yield picture.network_input
        if faults:
            some = "; ".join(faults[:_NAMED]) + ("; …" if len(faults) > _NAMED else "")
            raise TrainingError(
                f"{len(faults)} of {len(films)} films are not what they were when the cohort was built ({some}): "
                f"build the cohort again, or name their folder with --films if {cohort.root} has moved"
            )

    return stored(path, (len(films), edge, edge), np.dtype(np.uint8), pictures())


def stored(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], rows: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """An array in a file, computed if it is not there yet; never half of it after a crash.

    Parameters
    ----------
    path : pathlib.Path
        A ``.npy`` file.
    shape, dtype
        Of the whole.
    rows : iterable of numpy.ndarray
        One for each place along the first axis; not asked for if the file is there.

    Returns
    -------
    numpy.ndarray
        Mapped, read-only.

    Raises
    ------
    StorageError
        If there is no room, or the disk refused.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.npy")
        try:
            with temporary.open("wb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                _fill(temporary, shape, dtype, rows)
            temporary.rename(path)
            fsync_folder(path.parent)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    if array.shape != shape:
        raise StorageError(f"{path} has another shape than expected; delete it")
    return array


def _fill(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], rows: Iterable[NDArray[Any]]) -> None:
    if 0 in shape:
        np.save(path, np.empty(shape, dtype))
        return
    _check_room(path.parent, math.prod(shape) * dtype.itemsize)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    _reserve(path)
    for place, row in enumerate(rows):
        array[place] = row
    array.flush()
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _remove_abandoned(folder: Path) -> None:
    """Delete what killed runs left behind: nobody holds its lock."""
    for path in folder.glob(".*.npy"):
        with suppress(OSError), path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _check_room(folder: Path, size: int) -> None:
    if shutil.disk_usage(folder).free < size:
        raise OutOfSpace(f"{folder} has no room for {size / 1e9:.1f} GB: make room, or put data_folder elsewhere")


def _reserve(path: Path) -> None:
    """Take the room now: a mapped file that meets a full disk later kills the process (SIGBUS)."""
    with path.open("rb+") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def digest_of(*parts: bytes | str) -> str:
    """A short name for everything that a cached array depends on."""
    whole = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        whole.update(len(content).to_bytes(8, "big") + content)
    return whole.hexdigest()[:24]
