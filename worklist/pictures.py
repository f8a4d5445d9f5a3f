"""Small pictures for lists, made from stored files and kept in memory."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

THUMBNAIL_EDGE: Final = 96
PICTURE_EDGE: Final = 512
MOST_BYTES: Final = 16_000_000
"""Of all pictures that are kept: about 6,000 thumbnails."""
UNREADABLE: Final = (OSError, ValueError, KeyError, AttributeError, InvalidDicomError)
"""What a file that is gone or damaged raises."""


class Pictures:
    """Pictures by file and size, the latest ones in memory. Files are never changed, only deleted."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def film(self, path: Path, edge: int) -> bytes:
        """JPEG of a film from its map file, `edge` pixels long; one of `UNREADABLE` if that cannot be read."""
        return self._get(path, edge, _display)

    def capture(self, path: Path, edge: int) -> bytes:
        """JPEG of a Secondary Capture that we made; raises as `film` does."""
        return self._get(path, edge, _capture)

    def _get(self, path: Path, edge: int, read: Callable[[Path], NDArray[Any]]) -> bytes:
        key = (path, edge)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = _jpeg(read(path), edge)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += len(made)
            while self._bytes > MOST_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made


def _display(path: Path) -> NDArray[Any]:
    # Opened here: numpy does not close a file that it cannot read.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        display: NDArray[Any] = arrays["display"]
    return display


def _capture(path: Path) -> NDArray[Any]:
    pixels: NDArray[Any] = dcmread(path).pixel_array
    return pixels


def _jpeg(pixels: NDArray[Any], edge: int) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((edge, edge), Image.Resampling.BOX if edge <= THUMBNAIL_EDGE else Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
