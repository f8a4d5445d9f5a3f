"""A bound on what strangers can write into the audit trail: each record costs a commit."""

import threading
import time
from collections.abc import Callable

MOST_A_MINUTE = 30
_REMEMBERED = 4096


class Denials:
    """Counts denials of those who are not logged in, by address.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._minutes: dict[str, tuple[int, int, int]] = {}  # minute, denials in it, passed over since the last record

    def admit(self, address: str) -> int | None:
        """Whether to record one more denial: how many were passed over before it; None: pass this one over."""
        minute = int(self._clock() // 60)
        with self._lock:
            last, number, passed_over = self._minutes.get(address, (minute, 0, 0))
            number = number + 1 if last == minute else 1
            if address not in self._minutes and len(self._minutes) >= _REMEMBERED:
                self._minutes.clear()
            if number > MOST_A_MINUTE:
                self._minutes[address] = (minute, number, passed_over + 1)
                return None
            self._minutes[address] = (minute, number, 0)
            return passed_over
