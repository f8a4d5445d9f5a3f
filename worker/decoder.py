"""Decoder children of the worker: they judge films by the gate, decode and prepare them."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from clearfilm.child_pool import ChildPool, Limits
from clearfilm.config import Config
from clearfilm.dicom.pixels import FilmFacts, PreparedFilm

DEFAULT_EDGE: Final = 224


class DecoderPool:
    """A few decoder children, each served by one thread.

    Parameters
    ----------
    config : Config
        Sections `worker` (number, limits, unknown age) and `results` (size of the display picture).
    """

    def __init__(self, config: Config) -> None:
        settings = config.worker
        limits = Limits(settings.decode_memory_megabytes, settings.decode_timeout_seconds)
        self._pool = ChildPool("worker.decoder_child", settings.decoders, limits)
        self._request = {
            "display_edge": config.results.secondary_capture_edge,
            "unknown_age": settings.unknown_age,
            "unknown_view": settings.unknown_view,
        }

    def submit(self, path: Path, edge: int = DEFAULT_EDGE) -> Future[PreparedFilm]:
        """Have a stored film judged by the gate, decoded and prepared.

        Parameters
        ----------
        path : pathlib.Path
            A DICOM file with file meta information.
        edge : int
            Side of the network's input, pixels.

        Returns
        -------
        concurrent.futures.Future
            Of a `PreparedFilm`; raises `NotAnalysable` with the reason. Cancelled if the pool closes first.
        """
        return self._pool.submit({**self._request, "path": str(path), "edge": edge}, _film)

    def pids(self) -> list[int]:
        """Process numbers of the living children."""
        return self._pool.pids()

    def close(self) -> None:
        """Cancel what waits, let the film in hand end, end and reap every child."""
        self._pool.close()

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _film(answer: dict[str, Any], content: bytes) -> PreparedFilm:
    rows, columns = answer["display"]
    edge = answer["edge"]
    display = np.frombuffer(content, np.uint8, rows * columns).reshape(rows, columns)
    network_input = np.frombuffer(content, np.uint8, offset=rows * columns).reshape(edge, edge)
    return PreparedFilm(display, network_input, FilmFacts(**answer["facts"]))
