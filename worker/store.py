"""The node's files: films, maps and results below the data folder, named by nothing that was received."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clearfilm.files import opaque_path, write_durably

MAPS, RESULTS = "maps", "results"


@dataclass(frozen=True, eq=False)
class FilmMap:
    """What an analysis leaves for the conclusion: the evidence and the picture that it lies on."""

    evidence: NDArray[np.float32]  # (h, w), calibrated log-odds
    display: NDArray[np.uint8]  # (rows, columns), square pixels, 0 black


class Store:
    """Writes and reads the files that database rows name.

    Parameters
    ----------
    data_folder : pathlib.Path
        The root; rows hold paths relative to it, so that the folder can be moved.
    """

    def __init__(self, data_folder: Path) -> None:
        self._root = data_folder

    def path(self, relative: str) -> Path:
        """Absolute path of a row's file."""
        return self._root / relative

    def write_map(self, film_map: FilmMap) -> str:
        """Store a map durably.

        Returns
        -------
        str
            Path for the row.
        """
        buffer = io.BytesIO()
        np.savez(buffer, evidence=film_map.evidence, display=film_map.display)
        return self._write(MAPS, ".npz", buffer.getbuffer())

    def read_map(self, relative: str) -> FilmMap:
        """Read a map back; one of `clearfilm.maps.UNREADABLE_MAP` if the file is gone or damaged."""
        # Opened here: numpy does not close a file that it cannot read.
        with self.path(relative).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return FilmMap(evidence=arrays["evidence"], display=arrays["display"])

    def write_result(self, content: bytes) -> str:
        """Store a finished result object durably; gives the path for the row."""
        return self._write(RESULTS, ".dcm", content)

    def remove(self, relative: str) -> None:
        """Delete a file that no row names any more."""
        self.path(relative).unlink(missing_ok=True)

    def _write(self, folder: str, suffix: str, content: bytes | memoryview) -> str:
        path = opaque_path(self._root / folder, suffix)
        write_durably(path, [content])
        return str(path.relative_to(self._root))
