"""Films small enough for a page."""

from __future__ import annotations

import base64
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from clearfilm.vision.contours import draw_evidence

# Contours are drawn at this size, as in a Secondary Capture, and shrunk with the film.
_DRAWN_EDGE: Final = 576
_SHOWN_EDGE: Final = 232
_QUALITY: Final = 82


def inline(picture: NDArray[np.uint8], evidence: NDArray[np.float32] | None = None, threshold: float = 0) -> str:
    """A film as a `data:` address of a JPEG picture.

    Parameters
    ----------
    picture : numpy.ndarray
        uint8, shape ``(edge, edge)``: the network's input.
    evidence : numpy.ndarray, optional
        Map in log-odds; its contours are drawn from `threshold` as in the Secondary Capture.
    threshold : float
    """
    large: Any = cv2.resize(picture, (_DRAWN_EDGE, _DRAWN_EDGE), interpolation=cv2.INTER_CUBIC)
    colours: Any = cv2.cvtColor(large, cv2.COLOR_GRAY2RGB)
    if evidence is not None:
        draw_evidence(colours, evidence, threshold)
    shown = cv2.resize(colours, (_SHOWN_EDGE, _SHOWN_EDGE), interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()
