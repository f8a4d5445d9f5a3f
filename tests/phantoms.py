"""A drawn chest."""

import cv2
import numpy as np

EDGE = 224


def phantom(*, lungs: int = 2, edge: int = EDGE) -> tuple[np.ndarray, np.ndarray]:
    """A body in air with dark lungs, and where these are."""
    fine = np.full((EDGE, EDGE), 10, np.uint8)
    cv2.ellipse(fine, (112, 130), (100, 150), 0, 0, 360, 190, cv2.FILLED)
    truth = np.zeros((EDGE, EDGE), np.uint8)
    for centre, tilt in ((66, 8), (158, -8))[:lungs]:
        cv2.ellipse(truth, (centre, 100), (30, 64), tilt, 0, 360, 1, cv2.FILLED)
    fine[truth == 1] = 70
    fine = cv2.GaussianBlur(fine, (0, 0), 3)
    return tuple(cv2.resize(part, (edge, edge), interpolation=cv2.INTER_AREA) for part in (fine, truth))
