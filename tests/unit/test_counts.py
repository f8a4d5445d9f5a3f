"""One film, two films."""

import re

import pytest

from clearfilm.alert_words import SENTENCES
from clearfilm.counts import Counted, counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 films"), (1, "1 film"), (2, "2 films"), (12_345_678, "12345678 films")]
)
def test_one_is_told_from_several(number: int, words: str) -> None:
    assert counted(number, "film") == words


@pytest.mark.parametrize(("minutes", "words"), [(1.0, "1 minute"), (0.5, "0.5 minutes"), (240.0, "240 minutes")])
def test_parts_are_several(minutes: float, words: str) -> None:
    assert counted(minutes, "minute") == words


def test_other_plurals_are_given() -> None:
    assert counted(2, "study is", "studies are") == "2 studies are"


@pytest.mark.parametrize(
    ("value", "words"), [(1, "lasts 1 day"), ("1", "lasts 1 day"), (2, "lasts 2 days"), ("> 999", "lasts > 999 days")]
)
def test_sentence_follows_its_number(value: object, words: str) -> None:
    assert Counted("lasts {n} day", "lasts {n} days", "n").english(n=value) == words


@pytest.mark.parametrize("sentence", SENTENCES.values())
def test_no_alert_says_one_hours(sentence: str | Counted) -> None:
    names = ("hours", "minutes", "days", "count", "missed", "free", "mark", "subject", "error", "reason")
    facts = dict.fromkeys(names, 1)
    text = sentence.english(**facts) if isinstance(sentence, Counted) else sentence.format(**facts)
    assert not re.search(r"\b1 (hours|minutes|days|pieces)", text)
