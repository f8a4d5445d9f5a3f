"""Places where a test can make a process die, to prove that nothing is lost there.

`CLEARFILM_CRASH_POINT=name` kills the process with SIGKILL the first time it reaches that name;
`name:3` the third time. Unset, as always outside tests, a crash point costs one comparison.
"""

import os
import signal

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
_wanted, _, _times = os.environ.get("CLEARFILM_CRASH_POINT", "").partition(":")
_left = int(_times or 1)


def crash_point(name: str) -> None:
    """Die here if the environment says so.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    """
    global _left
    if name != _wanted:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
