"""Tabs of the list: built-in and saved views, with live counts."""

import threading
import time
from collections.abc import Callable, Sequence
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
_MOST_KEPT: Final = 500


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
    """Keeps what is expensive to ask for a moment, for all readers together."""

    def __init__(self, seconds: float = FRESH_SECONDS) -> None:
        self._seconds = seconds
        self._kept: dict[Any, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def get(self, key: Any, ask: Callable[[], Any]) -> Any:
        """What was asked under this key a moment ago, or the answer now."""
        now = time.monotonic()
        with self._lock:
            kept = self._kept.get(key)
        if kept is not None and now - kept[0] < self._seconds:
            return kept[1]
        found = ask()
        with self._lock:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = (now, found)
        return found
