"""How long work tells how far it is; the command line draws it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Watcher(Protocol):
    """Takes note of progress. Training never prints by itself."""

    def begin(self, what: str, total: int) -> None:
        """A phase of `total` steps starts."""

    def advance(self, note: str = "") -> None:
        """One step of the phase is done; `note` tells the figures of the moment."""

    def say(self, line: str) -> None:
        """A line that stays: an epoch's figures, a warning."""


class Silent:
    """A watcher that does nothing: tests, and all but the first of several processes."""

    def begin(self, what: str, total: int) -> None:
        """Nothing."""

    def advance(self, note: str = "") -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""


def watched(items: Iterable[Item], what: str, total: int, watcher: Watcher) -> Iterator[Item]:
    """Hand items on and count them."""
    watcher.begin(what, total)
    for item in items:
        yield item
        watcher.advance()
