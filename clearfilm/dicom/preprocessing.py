"""What changes the network's input, by name and by digest. Light: the web pages read it with every bundle."""

import hashlib
import json
from typing import Final

PREPROCESSING_ID: Final = "percentile-stretch-1"
LOW_PERCENT: Final = 0.5
HIGH_PERCENT: Final = 99.5
STATISTICS_EDGE: Final = 512


def preprocessing_hash() -> str:
    """SHA-256 over everything that changes what `clearfilm.dicom.pixels.network_input` returns, hexadecimal."""
    parameters = {
        "id": PREPROCESSING_ID,
        "percentiles": [LOW_PERCENT, HIGH_PERCENT],
        "statistics_edge": STATISTICS_EDGE,
        "resampling": "cv2.INTER_AREA on float32, stretched to a square, rounded to uint8",
    }
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
