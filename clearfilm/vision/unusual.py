"""Images unlike the films that a bundle knows: noise, animals, other parts of the body, films upside down.

The network's third stage, averaged over the upper and the lower half of the picture, lies near a subspace of few
dimensions for upright chest films. The distance to it tells them from other pictures; kept apart by halves, it also
tells upright from turned ones, which a mean over the whole picture cannot.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clearfilm.errors import BundleError

CENTRE = "centre"
BASIS = "basis"


def fit_subspace(features: NDArray[np.float32], components: int) -> dict[str, NDArray[np.float32]]:
    """Centre and principal directions of reference films.

    Parameters
    ----------
    features : numpy.ndarray
        Shape ``(films, channels)``, as in `clearfilm.vision.network.Forward`.
    components : int
        Dimensions of the subspace.

    Returns
    -------
    dict of str to numpy.ndarray
        Content of a bundle's `features.safetensors`: "centre" of shape ``(channels,)`` and "basis" of shape
        ``(components, channels)`` with orthonormal rows.
    """
    directions = _unit(features)
    centre = directions.mean(axis=0)
    _, _, rows = np.linalg.svd(directions - centre, full_matrices=False)
    return {CENTRE: centre.astype(np.float32), BASIS: np.ascontiguousarray(rows[:components], dtype=np.float32)}


def distances(features: NDArray[np.float32], subspace: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    """How far films lie off the subspace of a bundle's reference films.

    Parameters
    ----------
    features : numpy.ndarray
        Shape ``(n, channels)``.
    subspace : mapping of str to numpy.ndarray
        From `fit_subspace`.

    Returns
    -------
    numpy.ndarray
        Shape ``(n,)``, between 0 and 2: features have length 1.

    Raises
    ------
    BundleError
        If the subspace is not one of these features.
    """
    try:
        centre, basis = subspace[CENTRE], subspace[BASIS]
        offsets = _unit(features) - centre
        rest = offsets - (offsets @ basis.T) @ basis
    except (KeyError, ValueError) as error:
        raise BundleError("the bundle's reference features are not those of its network") from error
    return np.asarray(np.linalg.norm(rest, axis=1), dtype=np.float64)


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: NDArray[np.float32] = features / np.maximum(lengths, np.float32(1e-12))
    return unit
