"""Maps of evidence as they lie in the store."""

import zipfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

UNREADABLE_MAP: Final = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""What reading a missing, cut or altered map raises."""


def read_evidence(path: Path) -> NDArray[np.float32]:
    """Read the evidence of a film.

    Parameters
    ----------
    path : pathlib.Path
        The map's file.

    Returns
    -------
    numpy.ndarray
        Shape ``(h, w)``, calibrated log-odds; `clearfilm.vision.placing` says where its cells look.

    Raises
    ------
    OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile
        If the file is gone or damaged.
    """
    # Opened here: numpy does not close a file that it cannot read.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        evidence: NDArray[np.float32] = arrays["evidence"]
    if evidence.ndim != 2 or not evidence.size or not np.isfinite(evidence).all():
        raise ValueError("the map holds something else than evidence")
    return evidence
