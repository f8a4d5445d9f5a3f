"""Where retrainings leave their traces below the data folder."""

from pathlib import Path
from typing import Final

FOLDER: Final = "retraining"
OUTCOME: Final = "outcome.json"
LOG: Final = "log"
SCHEDULE: Final = "schedule"


def unfinished(root: Path) -> Path | None:
    """The newest retraining below `root` that has not come to its end: there is one at most.

    It need not bear the latest name: clocks step back.
    """
    open_ones = [path for path in root.glob("*") if path.is_dir() and not (path / OUTCOME).is_file()]
    return max(open_ones, default=None)
