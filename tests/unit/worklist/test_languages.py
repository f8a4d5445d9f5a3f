"""Every sentence of the pages can be read in both languages."""

import re
import string
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir, extract_from_file
from babel.messages.pofile import read_po

from clearfilm.config import Config
from clearfilm.counts import Counted
from worklist import settings_table
from worklist.templates import FOLDER, Templates, catalogue

METHODS = [("**.py", "python"), ("**.html", "jinja2.ext:babel_extract")]
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "N_": None, "NN_": (1, 2), "say": None}
# A number before a word in the plural, which would read "1 films".
COUNTS = re.compile(r"(?:\{(?!subject|peer)[a-z]+\}|%\([a-z]+\)s) (?:[a-z]+ ){0,2}[a-z]{3,}s\b")
# Those that are never said of one thing.
NEVER_ONE = {
    "{n} days": "from two days on",
    "{times} times since": "from two on",
    "%(num)s films": "from two on",
    "{unread} of {total} films not analysed: {reasons}": "a study of several films",
    "the process ended without a result {count} times": "always three",
    "It names the earlier report, and can be stopped for %(seconds)s seconds.": "always ten",
    "{n} cancelled. You can take that back for {seconds} seconds.": "always thirty",
    "implausible size, {columns} x {rows} pixels": "a size",
    "implausible shape, {columns} x {rows} pixels": "a size",
    "%(n)s of %(all)s signatures for these gates.": "always of two",
    "{n} films": "as recorded; one film has its own",
    "{n} films, demonstration data": "as recorded; one film has its own",
    "{n} of {all} critical films": "as recorded; one film has its own",
    "{loss} in {n} groups": "as recorded; one group has its own",
}


def sentences() -> dict[str | tuple[str, str], str]:
    """What stands in the code, and where; a pair is a sentence of one thing and of several."""
    found = extract_from_dir(
        FOLDER,
        METHODS,
        options_map={"**.html": {"trim_blocks": "true", "newstyle_gettext": "true", "silent": "false"}},
        keywords=KEYWORDS,
    )
    shared = extract_from_file("python", FOLDER.parent / "clearfilm" / "alert_words.py", keywords=KEYWORDS)
    places = [(f"{file}:{line}", messages) for file, line, messages, *_ in found]
    places += [(f"alert_words.py:{line}", messages) for line, messages, *_ in shared]
    places += [(row.key, row.words) for row in settings_table.rows(Config(), {})]
    return {(text if isinstance(text, str) else (text[0], text[1])): place for place, text in places if text}


def test_every_sentence_has_a_chinese_translation() -> None:
    chinese = catalogue("zh")
    missing = {
        text: place
        for text, place in sentences().items()
        if (chinese.gettext(text) == text if isinstance(text, str) else chinese.ngettext(*text, 2) == text[1])
    }
    assert missing == {}


@pytest.mark.parametrize("path", sorted((FOLDER / "locale").rglob("*.po")), ids=lambda path: path.stem)
def test_translations_take_the_same_values_and_none_is_left_over(path: Path) -> None:
    used = sentences()
    with path.open("rb") as source:
        entries = [entry for entry in read_po(source) if entry.id]
    for entry in entries:
        assert entry.id in used, "nothing says this any more"
        english, chinese = (text if isinstance(text, str) else text[-1] for text in (entry.id, entry.string))
        assert fields(chinese) == fields(english)


def test_every_key_of_the_configuration_has_its_purpose() -> None:
    assert [row.key for row in settings_table.rows(Config(), {}) if not row.words] == []


def test_no_sentence_counts_one_thing_in_the_plural() -> None:
    single = [text for text in sentences() if isinstance(text, str)]
    assert {text for text in single if COUNTS.search(text)} == NEVER_ONE.keys()


def test_counts_of_one_and_of_several() -> None:
    one, several = "{n} study has the priority STAT now.", "{n} studies have the priority STAT now."
    say = Templates().translate
    said = {(language, n): say(language, Counted(one, several, "n"), n=n) for language in ("en", "zh") for n in (1, 2)}
    assert said["en", 1] == "1 study has the priority STAT now."
    assert said["en", 2] == "2 studies have the priority STAT now."
    assert {said["zh", n].replace(str(n), "n") for n in (1, 2)} == {"n 个检查现为紧急优先级。"}


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text.replace("%(", "{").replace(")s", "}")) if name}
