"""How small and faint a planted opacity may be until score and map miss it.

The pointing game: J. Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018. A map hits if its
peak is the cell that looks nearest to the opacity's centre or one of the eight around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.evaluation.chest import lung_fields
from training.evaluation.delong import interval
from training.evaluation.intervals import Interval, exact
from training.evaluation.planted import Opacity, plant_all
from training.progress import Silent, Watcher, watched
from training.ranking import area

# Cells between the peak and the opacity's cell, along rows and along columns.
TOLERANCE: Final = 1

Films = NDArray[np.uint8]
Maps = NDArray[np.float32]
# From films of shape (n, edge, edge) to logits of shape (n,) and maps of shape (n, h, w), on any scale.
Reader = Callable[[Films], tuple[NDArray[np.float64], Maps]]


@dataclass(frozen=True)
class Found:
    """How well opacities of one size and contrast are found.

    Parameters
    ----------
    size, contrast : float
        As in `training.evaluation.planted.Opacity`.
    films : int
        Clear films, each read without and with an opacity.
    auc : float
        Films with against films without.
    auc_interval : tuple of float
        95 %, DeLong; on the safe side, since it does not use that the films are the same.
    hits : float
        Share of maps of films with an opacity that hit.
    hits_interval : tuple of float
        95 %, exact.
    chance : float
        Share of maps of the same films without opacity whose peak lies as near to the place by chance.
    """

    size: float
    contrast: float
    films: int
    auc: float
    auc_interval: Interval
    hits: float
    hits_interval: Interval
    chance: float


def pointing_hits(maps: Maps, opacities: Sequence[Opacity]) -> NDArray[np.bool_]:
    """Whether each map's peak is within `TOLERANCE` cells of its opacity, also diagonally.

    Parameters
    ----------
    maps : numpy.ndarray
        Shape ``(n, h, w)``; of equal cells the first one is the peak.
    opacities : sequence of Opacity
        One for each map.

    Returns
    -------
    numpy.ndarray
        bool, shape ``(n,)``.
    """
    cells = maps.shape[1], maps.shape[2]
    peaks = np.stack(np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), cells), axis=1)
    wanted = np.array([opacity.cell(cells) for opacity in opacities])
    return np.asarray(np.abs(peaks - wanted).max(axis=1) <= TOLERANCE)


def sweep(
    read: Reader, films: Films, kinds: Sequence[tuple[float, float]], seed: int, watcher: Watcher | None = None
) -> tuple[Found, ...]:
    """Plant opacities of several sizes and contrasts and see how they are found.

    Parameters
    ----------
    read : callable
        The network.
    films : numpy.ndarray
        uint8, shape ``(n, edge, edge)``: clear films that the network did not learn from.
    kinds : sequence of tuple of float
        Sizes and contrasts.
    seed : int
        Of the places; opacities of one size lie at the same places whatever their contrast.
    watcher : Watcher, optional

    Returns
    -------
    tuple of Found
        One for each kind, in order.
    """
    without, clear_maps = read(films)
    lungs = [lung_fields(film) for film in films]
    labels = np.repeat(np.array([0, 1], dtype=np.float32), len(films))
    found = []
    for size, contrast in watched(kinds, "reading planted opacities", len(kinds), watcher or Silent()):
        planted, opacities = plant_all(films, lungs, size, contrast, seed)
        with_opacity, maps = read(planted)
        scores = np.concatenate([without, with_opacity])
        hits = pointing_hits(maps, opacities)
        found.append(
            Found(
                size=size,
                contrast=contrast,
                films=len(films),
                auc=area(labels, scores),
                auc_interval=interval(labels, scores),
                hits=float(hits.mean()),
                hits_interval=exact(int(hits.sum()), len(hits)),
                chance=float(pointing_hits(clear_maps, opacities).mean()),
            )
        )
    return tuple(found)
