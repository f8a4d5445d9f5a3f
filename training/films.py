"""Films as the network sees them, from DICOM files and from pictures, prepared as the worker does it."""

from __future__ import annotations

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


class Decoder(Protocol):
    """Decodes DICOM films outside this process: the worker's decoder pool."""

    def submit(self, path: Path, edge: int) -> Future[PreparedFilm]:
        """Have a stored film judged, decoded and prepared; the future may raise `NotAnalysable`."""


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
