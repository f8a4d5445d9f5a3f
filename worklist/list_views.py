"""Tabs of the list: built-in and saved views, with live counts."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from db.listing import Filter, Order, Progress, Rank, Readers, Sorting
from db.views import SavedView
from worklist.list_query import ListQuery, read
from worklist.templates import N_

_NEWEST: Final = Sorting(Order.RECEIVED, descending=True)
UNREAD: Final = ListQuery(Filter(readers=(Readers.UNREAD,)))
BUILT_IN: Final = (
    (N_("Unread"), UNREAD),
    (N_("STAT"), ListQuery(Filter(readers=(Readers.UNREAD,), level=(Rank.STAT, Rank.HIGH)))),
    (N_("Today"), ListQuery(when="today", sorting=_NEWEST)),
    (N_("Failed"), ListQuery(Filter(progress=(Progress.FAILED,)), sorting=_NEWEST)),
    (N_("Mine"), ListQuery(Filter(mine=True), sorting=_NEWEST)),
    (N_("All"), ListQuery(sorting=_NEWEST)),
)
FRESH_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Tab:
    """A view that can be chosen."""

    label: str
    query: ListQuery
    saved: SavedView | None = None

    @property
    def address(self) -> str:
        """Its query string."""
        return self.query.address()


def tabs(saved: Sequence[SavedView], say: Callable[[str], str]) -> list[Tab]:
    """All tabs of a user, in the order of their numbers."""
    own = [Tab(view.name, read(parse_qsl(view.query))[0], view) for view in saved]
    return [*(Tab(say(label), query) for label, query in BUILT_IN), *own]


class Fresh:
    """Keeps what is expensive to ask for a moment, for all readers together.

    Who asks for what somebody else is asking for already waits for that answer: an event makes all open pages ask
    at once.

    Parameters
    ----------
    seconds : float
        How long an answer is good, counted from the question.
    most : int
        Most answers that are kept.
    """

    def __init__(self, seconds: float = FRESH_SECONDS, most: int = 500) -> None:
        self._seconds = seconds
        self._most = most
        self._kept: dict[Any, tuple[float, Future[Any]]] = {}
        self._lock = threading.Lock()

    def get(self, key: Any, ask: Callable[[], Any]) -> Any:
        """What was asked under this key a moment ago, or the answer now; raises what `ask` raises."""
        now = time.monotonic()
        with self._lock:
            asked_at, answer = self._kept.get(key, (-math.inf, Future()))
            is_asked = now - asked_at < self._seconds
            if not is_asked:
                if len(self._kept) >= self._most:
                    self._kept.clear()
                answer = Future()
                self._kept[key] = (now, answer)
        return answer.result() if is_asked else self._ask(key, answer, ask)

    def _ask(self, key: Any, answer: Future[Any], ask: Callable[[], Any]) -> Any:
        try:
            found = ask()
        except BaseException as error:
            answer.set_exception(error)
            with self._lock:
                self._kept.pop(key, None)
            raise
        answer.set_result(found)
        return found
