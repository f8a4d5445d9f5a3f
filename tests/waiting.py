"""Wait for what other threads and processes do."""

import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 20, what: str = "nothing happened in time") -> None:
    """Return as soon as the condition holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        pause.wait(0.02)
