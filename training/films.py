"""Films as the network sees them, from DICOM files and from pictures, prepared as the worker does it."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from clearfilm.dicom.pixels import FilmFacts, PreparedFilm, network_input, render
from clearfilm.errors import NotAnalysable

PICTURE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})
_IN_HAND = 16
# Preamble, "DICM", and tag, VR and length of the group length, whose value follows.
_META_LENGTH: Final = 128 + 4 + 8


class Decoder(Protocol):
    """Decodes DICOM films outside this process: the worker's decoder pool."""

    def submit(self, path: Path, edge: int) -> Future[PreparedFilm]:
        """Have a stored film judged, decoded and prepared; the future may raise `NotAnalysable`."""


def film_digest(path: Path, source: str) -> str:
    """SHA-256 of a film as its cohort has it (see `training.cohort.Film`).

    Parameters
    ----------
    path : pathlib.Path
    source : str
        Of the cohort: of the archive's films the data set counts, without the file meta information that the
        listener has put before it (PS3.10 7.1).

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as stream:
        if source == "archive":
            stream.seek(_META_LENGTH)
            stream.seek(int.from_bytes(stream.read(4), "little"), os.SEEK_CUR)
        return hashlib.file_digest(stream, "sha256").hexdigest()


def prepared(paths: Sequence[Path], edge: int, decoder: Decoder) -> Iterator[PreparedFilm | NotAnalysable]:
    """Prepare films, in order.

    Parameters
    ----------
    paths : sequence of pathlib.Path
        JPEG and PNG pictures by their suffix; everything else is taken for DICOM.
    edge : int
        Side of the network's input, pixels.
    decoder : Decoder

    Yields
    ------
    PreparedFilm or NotAnalysable
        For each path; the error is handed out, not raised, so that the others go on.
    """
    waiting: deque[Path | Future[PreparedFilm]] = deque()
    for path in paths:
        is_picture = path.suffix.lower() in PICTURE_SUFFIXES
        waiting.append(path if is_picture else decoder.submit(path, edge))
        if len(waiting) >= _IN_HAND:
            yield _result(waiting.popleft(), edge)
    while waiting:
        yield _result(waiting.popleft(), edge)


def _result(film: Path | Future[PreparedFilm], edge: int) -> PreparedFilm | NotAnalysable:
    try:
        return prepare_picture(film, edge) if isinstance(film, Path) else film.result()
    except NotAnalysable as error:
        return error


def prepare_picture(path: Path, edge: int) -> PreparedFilm:
    """A JPEG or PNG picture, bright = dense, treated like a DICOM film without a header.

    Parameters
    ----------
    path : pathlib.Path
        8 or 16 bits; colours become grey.
    edge : int
        Side of the network's input, pixels.

    Raises
    ------
    NotAnalysable
        If it is no picture, or a constant one.
    """
    read: NDArray[Any] | None = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if read is None or read.dtype not in (np.uint8, np.uint16):
        raise NotAnalysable("the file is not a picture")
    stored: NDArray[np.unsignedinteger] = read
    if stored.min() == stored.max():
        raise NotAnalysable("pixel values are constant")
    bits = 8 * stored.dtype.itemsize
    ds = Dataset()
    ds.BitsAllocated = ds.BitsStored = bits
    ds.PixelRepresentation = 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    display, _, voi = render(stored, ds)
    facts = FilmFacts(
        rows=stored.shape[0],
        columns=stored.shape[1],
        bits_stored=bits,
        decoder="OpenCV",
        lossy=path.suffix.lower() != ".png",
        voi=voi,
        padding_share=0.0,
        burned_in_annotation="",
    )
    return PreparedFilm(display, network_input(display, edge), facts)
