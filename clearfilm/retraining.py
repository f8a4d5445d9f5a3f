"""Where retrainings leave their traces below the data folder."""

from pathlib import Path
from typing import Final

FOLDER: Final = "retraining"
OUTCOME: Final = "outcome.json"
LOG: Final = "log"
SCHEDULE: Final = "schedule"


def unfinished(root: Path) -> Path | None:
    """The newest retraining below `root` that has not come to its end, if that is the newest of all."""
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    return folders[-1] if folders and not (folders[-1] / OUTCOME).is_file() else None
