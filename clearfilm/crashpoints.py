"""Places where a test can make a process die, to prove that nothing is lost there.

With `CLEARFILM_CRASH_FOLDER` set, a process that reaches a crash point looks for a file of that name in
the folder, removes it, and kills itself with SIGKILL. Unset, as always outside tests, nothing happens.
"""

import os
import signal
from pathlib import Path

NAMES = (
    "before-first-byte",
    "middle-of-file",
    "written-before-fsync",
    "fsynced-before-rename",
    "renamed-before-commit",
    "committed-before-answer",
    "claimed",
    "middle-of-inference",
    "result-file-before-commit",
    "concluded-before-send",
    "stored-at-peer-before-commit",
)
# Not on the way of a film.
PROMOTION = ("promotion-signed", "promotion-switched", "promotion-committed")
_folder = os.environ.get("CLEARFILM_CRASH_FOLDER")


def crash_point(name: str) -> None:
    """Die here if a test wants it.

    Parameters
    ----------
    name : str
        One of `NAMES` or `PROMOTION`.
    """
    if _folder is None:
        return
    order = Path(_folder) / name
    try:
        order.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
