"""The words of the rules: one YAML file for each language, which a site may edit."""

from __future__ import annotations

import enum
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from clearfilm.errors import ConfigurationError

SHIPPED = Path(__file__).parent
TAGS = ("critical", "urgent", "significant", "minor", "device", "quality")
REGIONS = ("lung", "heart", "chest", "elsewhere")
CJK = "\u3400-\u4dbf\u4e00-\u9fff"
_TOKEN = re.compile(rf"[A-Za-z]+|[0-9]+(?:\.[0-9]+)?|[{CJK}]|\(-\)|[^\s]")
REMOVED = "□"  # stands for words that de-identification took away
# "x-xxxx" was an x-ray.
_XXXX = re.compile(r"\bx-x{3,}|(?:\bx{3,}\b[ /-]*)+", re.IGNORECASE)
_INSIDE_WORD = re.compile(r"(?<=[A-Za-z0-9])['’-](?=[A-Za-z0-9])")


class Kind(enum.Enum):
    """What a word or phrase is to the rules."""

    BEFORE = "negation.before"
    AFTER = "negation.after"
    BREAK = "negation.scope_ends"
    REST = "rest"
    DOUBT = "doubt.words"
    CANNOT_EXCLUDE = "doubt.always"
    LIMIT = "limits"
    GENERIC = "generic"
    NEGATIVE = "negative"
    NORMAL = "normal"
    CHANGE = "change"
    IMPROVED = "improved"
    ADVICE = "advice"
    UNSETTLED = "unsettled"
    ANATOMY = "anatomy"
    FINDING = "findings"
    FILLER = "fillers"
    COMMA = "comma"
    UNKNOWN = "unknown"


# Where a phrase stands in two lists, the first of these counts.
_PLAIN = (
    Kind.REST,
    Kind.BEFORE,
    Kind.AFTER,
    Kind.BREAK,
    Kind.CANNOT_EXCLUDE,
    Kind.DOUBT,
    Kind.IMPROVED,
    Kind.UNSETTLED,
    Kind.ADVICE,
    Kind.CHANGE,
    Kind.NORMAL,
    Kind.NEGATIVE,
    Kind.GENERIC,
    Kind.LIMIT,
)


@dataclass(frozen=True)
class Token:
    """A word, number, Chinese character or sign, with its place in the normalised text."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Entry:
    """What the lexicon says of a phrase; `detail` is the region of anatomy or the tag of a finding."""

    kind: Kind
    detail: str = ""
    roles: frozenset[str] = frozenset()


UNKNOWN = Entry(Kind.UNKNOWN)
NO_ROLES: frozenset[str] = frozenset()
PARENCHYMAL = frozenset({"parenchymal"})
ROLES = ("verbs", "reported", "assertive", "joints")
_LISTS = (
    *(kind.value for kind in _PLAIN),
    *(f"findings.{tag}" for tag in TAGS),
    *(f"anatomy.{region}" for region in REGIONS),
    *(f"clauses.{role}" for role in ROLES),
    "strict.impressions",
    "strict.ignored",
    "strict.prefixes",
    "skip_sections",
    "parenchymal",
    "fillers",
)


@dataclass(frozen=True)
class Lexicon:
    """All words of all languages, ready for matching.

    Parameters
    ----------
    version : str
        Languages with their versions, and a digest of the content: an edited file has another version.
    phrases : mapping
        First token → (all tokens, entry), longest first.
    strict_impressions : frozenset of str
        Whole sentences of the strict rule, as `compress` leaves them.
    ignored : frozenset of tuple of str
        Words that do not matter there.
    prefixes, skipped_sections : frozenset of tuple of str
        Headings before a colon: passed over, or passed over with their sentence.
    """

    version: str
    phrases: Mapping[str, tuple[tuple[tuple[str, ...], Entry], ...]]
    strict_impressions: frozenset[tuple[str, ...]]
    ignored: frozenset[tuple[str, ...]]
    prefixes: frozenset[tuple[str, ...]]
    skipped_sections: frozenset[tuple[str, ...]]

    def match(self, tokens: Sequence[Token], at: int) -> tuple[Entry, int]:
        """The longest known phrase that begins at a token, and how many tokens it has (1 if unknown)."""
        for phrase, entry in self.phrases.get(tokens[at].text, ()):
            if all(
                at + offset < len(tokens) and tokens[at + offset].text == word for offset, word in enumerate(phrase)
            ):
                return entry, len(phrase)
        return UNKNOWN, 1

    def is_strictly_normal(self, tokens: Sequence[Token]) -> bool:
        """Whether a sentence is one of the strict rule's, apart from signs, numbering and ignored words."""
        asked = any(token.text == "?" for token in tokens)
        return not asked and compress(tokens, self.ignored) in self.strict_impressions


def normalise(text: str) -> str:
    """NFKC (full and half width), with one sign for all that de-identification took away."""
    text = unicodedata.normalize("NFKC", text)
    text = _XXXX.sub(lambda match: "x ray" if match[0][1:2] == "-" else f" {REMOVED} ", text)
    return _INSIDE_WORD.sub(" ", text)


def tokenise(text: str) -> list[Token]:
    """Tokens of a normalised text in lower case; English plurals become singular."""
    return [Token(_singular(found[0].lower()), found.start(), found.end()) for found in _TOKEN.finditer(text)]


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]


def compress(tokens: Sequence[Token], ignored: frozenset[tuple[str, ...]]) -> tuple[str, ...]:
    """Words of a sentence without signs and without those that do not matter for the strict rule."""
    words = tuple(token.text for token in tokens if token.text.isalnum())
    longest = max(map(len, ignored), default=0)
    kept: list[str] = []
    at = 0
    while at < len(words):
        length = next((size for size in range(longest, 0, -1) if words[at : at + size] in ignored), 0)
        if not length:
            kept.append(words[at])
        at += max(length, 1)
    return tuple(kept)


def load(folder: Path | None = None) -> Lexicon:
    """Read the lexicon.

    Parameters
    ----------
    folder : pathlib.Path, optional
        A folder with a site's own ``lexicon_*.yaml``; default: the shipped ones.

    Returns
    -------
    Lexicon
        Words of all files together, so that reports may mix languages.

    Raises
    ------
    ConfigurationError
        If the folder has no such file, or a file is not of the form of the shipped ones.
    """
    paths = sorted((folder or SHIPPED).glob("lexicon_*.yaml"))
    if not paths:
        raise ConfigurationError(f"{folder}: holds no lexicon_*.yaml; copy those of training/labels and edit them")
    contents = {path: _read(path) for path in paths}
    files = list(contents.values())
    table: dict[tuple[str, ...], Entry] = {}
    for values in files:
        for phrase, entry in _entries(values):
            known = table.setdefault(phrase, entry)
            if entry.roles - known.roles:
                table[phrase] = replace(known, roles=known.roles | entry.roles)
    ignored = frozenset(phrase for values in files for phrase in _phrases(values["strict"]["ignored"]))
    return Lexicon(
        version=_version(contents),
        phrases=_by_first_word(table),
        strict_impressions=frozenset(
            compress(tokenise(normalise(str(text))), ignored)
            for values in files
            for text in values["strict"]["impressions"]
        )
        - {()},
        ignored=ignored,
        prefixes=frozenset(phrase for values in files for phrase in _phrases(values["strict"]["prefixes"])),
        skipped_sections=frozenset(phrase for values in files for phrase in _phrases(values["skip_sections"])),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: is not a readable YAML file in UTF-8") from error
    faults = [name for name in _LISTS if not isinstance(_get(values, name), list)]
    if faults:
        raise ConfigurationError(f"{path}: these must be lists of words: {', '.join(faults)}")
    wrong = [
        f"{name}: {word!r} is not text (put it in quotes)"
        for name in _LISTS
        for word in _get(values, name)
        if not isinstance(word, str | int) or isinstance(word, bool)
    ]
    if wrong:
        raise ConfigurationError(f"{path}: {'; '.join(wrong)}")
    return dict(values)


def _get(values: object, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _phrases(words: Iterable[object]) -> Iterator[tuple[str, ...]]:
    for word in words:
        phrase = tuple(token.text for token in tokenise(normalise(str(word))))
        if phrase:
            yield phrase


def _entries(values: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Entry]]:
    """All phrases of a file; where one stands in several lists, the earlier kind counts, the roles add up."""
    parenchymal = frozenset(_phrases(values["parenchymal"]))
    for tag in TAGS:
        for phrase in _phrases(values["findings"][tag]):
            yield phrase, Entry(Kind.FINDING, tag, PARENCHYMAL if phrase in parenchymal else NO_ROLES)
    for kind in _PLAIN:
        yield from ((phrase, Entry(kind)) for phrase in _phrases(_get(values, kind.value)))
    for region in REGIONS:
        yield from ((phrase, Entry(Kind.ANATOMY, region)) for phrase in _phrases(values["anatomy"][region]))
    yield from ((phrase, Entry(Kind.FILLER)) for phrase in _phrases(values["fillers"]))
    for role in ROLES:
        yield from (
            (phrase, Entry(Kind.FILLER, roles=frozenset({role}))) for phrase in _phrases(values["clauses"][role])
        )


def _by_first_word(table: Mapping[tuple[str, ...], Entry]) -> dict[str, tuple[tuple[tuple[str, ...], Entry], ...]]:
    grouped: dict[str, list[tuple[tuple[str, ...], Entry]]] = {}
    for phrase in sorted(table, key=len, reverse=True):
        grouped.setdefault(phrase[0], []).append((phrase, table[phrase]))
    return {word: tuple(entries) for word, entries in grouped.items()}


def _version(files: Mapping[Path, dict[str, Any]]) -> str:
    names = "+".join(f"{values['language']}{values['version']}" for values in files.values())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return f"{names}-{digest[:8]}"
