"""Films read with a bundle exactly as the worker reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clearfilm.config import Config
from clearfilm.vision.bundle import Bundle
from clearfilm.vision.engine import Engine
from training.progress import Watcher

Picture = NDArray[np.uint8]
_IN_HAND: Final = 32


@dataclass(frozen=True, eq=False)
class Answers:
    """What a bundle says of n films.

    Parameters
    ----------
    scores : numpy.ndarray
        float64, shape ``(n,)``: calibrated probability of a significant finding.
    evidence : numpy.ndarray
        float32, shape ``(n, h, w)``: maps in calibrated log-odds.
    unusual : numpy.ndarray
        bool, shape ``(n,)``: the worker gives these no answer.
    threshold : float or None
        The bundle's operating point.
    """

    scores: NDArray[np.float64]
    evidence: NDArray[np.float32]
    unusual: NDArray[np.bool_]
    threshold: float | None

    @property
    def below(self) -> NDArray[np.bool_]:
        """Films with no significant finding; none for a bundle without operating point."""
        if self.threshold is None:
            return np.zeros(len(self.scores), np.bool_)
        return self.scores < self.threshold

    def only(self, chosen: NDArray[np.bool_] | slice) -> Answers:
        """The answers on some of the films."""
        return Answers(self.scores[chosen], self.evidence[chosen], self.unusual[chosen], self.threshold)


class Reader:
    """A bundle, ready to read films.

    Parameters
    ----------
    bundle : Bundle
    config : Config
        Sections `worker` and `heatmap`, as the worker itself takes them.

    Raises
    ------
    BundleError
        See `clearfilm.vision.engine.Engine`.
    """

    def __init__(self, bundle: Bundle, config: Config) -> None:
        self.bundle = bundle
        self._engine = Engine(bundle, config.worker, config.heatmap)

    def describe(self) -> str:
        """Device, number type and versions in one line."""
        return self._engine.describe()

    def read(self, places: Sequence[int], film: Callable[[int], Picture], what: str, watcher: Watcher) -> Answers:
        """Read films.

        Parameters
        ----------
        places : sequence of int
            At least one.
        film : callable
            Place to uint8 picture of the network's size.
        what : str
            What the watcher is told.
        watcher : Watcher
        """
        point = self.bundle.description.operating_point
        watcher.begin(what, len(places))
        readings = []
        for at in range(0, len(places), _IN_HAND):
            chosen = places[at : at + _IN_HAND]
            readings += self._engine.run(np.stack([film(place) for place in chosen]))
            for _ in chosen:
                watcher.advance()
        return Answers(
            scores=np.array([reading.score for reading in readings]),
            evidence=np.stack([reading.evidence for reading in readings]),
            unusual=np.array([reading.unusual for reading in readings], dtype=np.bool_),
            threshold=None if point is None else point.threshold,
        )
