"""Films in full depth for readers: decoded in children, handed on as the stored values that they are."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearfilm.child_pool import ChildPool, Limits


@dataclass(frozen=True, eq=False)
class FullFilm:
    """A decoded film.

    Parameters
    ----------
    facts : dict
        JSON values: ``rows``, ``columns``; ``allocated`` and ``bits``, stored bits of each value; ``signed``;
        ``photometric``; ``low``, ``high``, ``slope``, ``intercept``, ``padding``, ``aspect``, ``voi`` as of
        `clearfilm.dicom.pixels.Presentation`; ``lossy``; ``decoder``.
    content : bytes
        The grey table, uint16 for each value that ``bits`` can hold, lowest first; then the stored values
        without any loss, rows first, uint8 or uint16. Little endian.
    """

    facts: dict[str, Any]
    content: bytes


class FullDepth:
    """Decodes films for readers, in one child that starts with the first film or with `start`.

    Parameters
    ----------
    limits : Limits
        Of the child.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._pool: ChildPool | None = None

    def start(self) -> None:
        """Let the child load its libraries, so that the first film need not wait for them."""
        self._running()

    def submit(self, path: Path) -> Future[FullFilm]:
        """Have a stored film decoded.

        Returns
        -------
        concurrent.futures.Future
            Of a `FullFilm`; raises `NotAnalysable` with the reason. Cancelled if `close` comes first.
        """
        return self._running().submit({"path": str(path)}, FullFilm)

    def close(self) -> None:
        """Let the film in hand end, end the child."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _running(self) -> ChildPool:
        with self._lock:
            if self._pool is None:
                self._pool = ChildPool("clearfilm.dicom.film_child", 1, self._limits)
            return self._pool
