"""Counts in English: one film, two films; the web pages translate such sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Counted:
    """A sentence that English says in one way of one thing and in another of several."""

    one: str
    several: str
    by: str  # the value that counts, `{name}` in both

    def number(self, values: Mapping[str, object]) -> int:
        """What decides; texts such as "> 999" and parts such as 1.0 stand for several."""
        text = str(values[self.by])
        return int(text) if text.isdecimal() else 2

    def english(self, **values: object) -> str:
        """The sentence with its values."""
        return (self.one if self.number(values) == 1 else self.several).format(**values)


def NN_(one: str, several: str, by: str = "n") -> Counted:  # noqa: N802 - like gettext's N_
    """Mark a sentence that counts for the catalogues of the web pages."""
    return Counted(one, several, by)


def counted(number: float, one: str, several: str = "") -> str:
    """`1 film` or `2 films`; `several` where an s is not enough."""
    amount = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{amount} {one if number == 1 else several or one + 's'}"
