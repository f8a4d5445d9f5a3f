"""How grave it is to miss a film, by the tags of its report or the names of its findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

from training.labels.labeller import Labeller
from training.labels.lexicon import TAGS

Severity = Literal["critical", "finding", "device", "minor"]
ORDER: Final[tuple[Severity, ...]] = get_args(Severity)
_NOT_SAID: Final = frozenset({"quality"})


class Grader:
    """Grades films; remembers what it was asked.

    Parameters
    ----------
    labeller : Labeller
        Its lexicon also grades findings by name, as public collections have them ("Pneumothorax|Mass").
    """

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller
        self._known: dict[str, frozenset[str]] = {}

    def grade(self, tags: str) -> Severity:
        """Severity of an abnormal film.

        Parameters
        ----------
        tags : str
            Joined by "|".

        Returns
        -------
        str
            "critical" if anything is; "device" or "minor" if nothing else is there; otherwise "finding".
        """
        said = self._said([word.strip() for word in tags.split("|") if word.strip()])
        if "critical" in said:
            return "critical"
        if not said or said - {"device", "minor"}:
            return "finding"
        return "device" if "device" in said else "minor"

    def _said(self, words: Sequence[str]) -> frozenset[str]:
        return frozenset().union(*(self._tags(word) for word in words)) - _NOT_SAID

    def _tags(self, word: str) -> frozenset[str]:
        if word.lower() in TAGS:
            return frozenset({word.lower()})
        if word not in self._known:
            tags = self._labeller.label("", word.replace("_", " ")).tags
            self._known[word] = frozenset(tags or ("significant",))  # a word that nobody knows may be grave
        return self._known[word]
