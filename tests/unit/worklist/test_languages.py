"""Every sentence of the pages can be read in both languages."""

import string
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir, extract_from_file
from babel.messages.pofile import read_po

from worklist.templates import FOLDER, catalogue

METHODS = [("**.py", "python"), ("**.html", "jinja2.ext:babel_extract")]
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "N_": None, "say": None}


def sentences() -> dict[str, str]:
    """What stands in the code, and where."""
    found = extract_from_dir(
        FOLDER,
        METHODS,
        options_map={"**.html": {"trim_blocks": "true", "newstyle_gettext": "true", "silent": "false"}},
        keywords=KEYWORDS,
    )
    shared = extract_from_file("python", FOLDER.parent / "clearfilm" / "alert_words.py", keywords=KEYWORDS)
    places = [(f"{file}:{line}", messages) for file, line, messages, *_ in found]
    places += [(f"alert_words.py:{line}", messages) for line, messages, *_ in shared]
    return {
        message: place
        for place, messages in places
        for message in ([messages] if isinstance(messages, str) else messages)
        if message
    }


def test_every_sentence_has_a_chinese_translation() -> None:
    chinese = catalogue("zh")
    missing = {text: place for text, place in sentences().items() if chinese.gettext(text) == text}
    assert missing == {}


@pytest.mark.parametrize("path", sorted((FOLDER / "locale").rglob("*.po")), ids=lambda path: path.stem)
def test_translations_take_the_same_values_and_none_is_left_over(path: Path) -> None:
    used = sentences()
    with path.open("rb") as source:
        entries = [entry for entry in read_po(source) if entry.id]
    for entry in entries:
        english, chinese = (text if isinstance(text, str) else text[0] for text in (entry.id, entry.string))
        assert english in used, "nothing says this any more"
        assert fields(chinese) == fields(english)


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text.replace("%(", "{").replace(")s", "}")) if name}
