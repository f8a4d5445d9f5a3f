"""Finding words of a list in received text, Chinese or English."""

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

_CJK: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
# Letters and digits of Latin scripts: a Chinese character beside a word is a border.
_LETTER: Final = "[0-9a-z\u00df-\u024f]"
_GAP: Final = re.compile(r"[\s_/\\\-\u2010-\u2015]+")


def normalise(text: str) -> str:
    """One form for one word: NFKC, case folded, no invisible characters, gaps and hyphens as one space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    visible = "".join(letter for letter in folded if unicodedata.category(letter) not in ("Cf", "Mn"))
    return _GAP.sub(" ", visible).strip()


def first_found(text: str, words: Sequence[str]) -> str | None:
    """The first word of a list that occurs in a text.

    Words with a Chinese character are found anywhere, whatever blanks the text has; others only between
    word borders. A star at the end takes any ending: ``metasta*``. Negation does not count: "no trauma"
    holds "trauma".

    Parameters
    ----------
    text : str
        As received.
    words : sequence of str

    Returns
    -------
    str or None
        As the list has it.
    """
    if not text:
        return None
    plain = normalise(text)
    dense = plain.replace(" ", "")
    for word, pattern, is_dense in _patterns(tuple(words)):
        if pattern.search(dense if is_dense else plain):
            return word
    return None


@functools.cache
def _patterns(words: tuple[str, ...]) -> list[tuple[str, re.Pattern[str], bool]]:
    return [(word, *_pattern(normalise(word))) for word in words]


def _pattern(word: str) -> tuple[re.Pattern[str], bool]:
    stem = word.removesuffix("*").strip()
    if _CJK.search(stem):
        return re.compile(re.escape(stem.replace(" ", ""))), True
    end = "" if word.endswith("*") else f"(?!{_LETTER})"
    return re.compile(f"(?<!{_LETTER}){re.escape(stem)}{end}"), False
