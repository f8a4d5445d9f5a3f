"""Three-valued labels by rules, for Chinese and English chest reports: auditable, never guessed.

A sentence is understood when every word of it is known. A report is `no_finding` only if every sentence is understood,
none tells a finding and at least one speaks of clear lungs; whatever remains is `indeterminate`, outside of training.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from training.labels.lexicon import CJK, REMOVED, TAGS, Entry, Kind, Lexicon, Token, normalise, tokenise

MAXIMUM_CHARACTERS = 100_000
_MAXIMUM_SPAN = 160
_SENTENCE = re.compile(r"(?:[^。;!\r\n.]|\.(?=[0-9]))+")
_BLANKS = re.compile(r"[ \t]+")
_CHINESE = re.compile(f"[{CJK}]")
_COMMA = Entry(Kind.COMMA)
_NUMBER = Entry(Kind.FILLER)

# Words that by themselves say nothing about the patient.
_SILENT = frozenset({Kind.FILLER, Kind.ANATOMY, Kind.COMMA, Kind.LIMIT, Kind.BREAK})

RuleSet = Literal["wide", "strict"]


class Value(enum.StrEnum):
    """What a report says."""

    NO_FINDING = "no_finding"
    FINDING = "finding"
    INDETERMINATE = "indeterminate"


@dataclass(frozen=True)
class Label:
    """The label of a report, and why.

    Parameters
    ----------
    label : Value
        `indeterminate` is left out of training and counted.
    rule : str
        Identifier of the rule that decided; docs/labels.md lists them.
    span : str
        The words that decided, at most 160 characters.
    tags : tuple of str
        Of critical, urgent, significant, minor, device, quality, in this order. For evaluation only.
    """

    label: Value
    rule: str
    span: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Said:
    """One thing that a text says: the rule that sees it, its words, and the tag of a finding."""

    rule: str
    span: str
    tag: str = ""


@dataclass
class _Part:
    """What findings or impression say."""

    normal_impression: bool = False
    text: str = ""
    findings: list[_Said] = field(default_factory=list)
    doubtful: list[_Said] = field(default_factory=list)  # each keeps the report from being clear
    evidence: list[_Said] = field(default_factory=list)  # of clear lungs
    limited: list[_Said] = field(default_factory=list)  # true of a clear chest, but of others too


def label_report(
    findings: str, impression: str, *, lexicon: Lexicon, rule_set: RuleSet = "wide", accept_no_acute: bool = False
) -> Label:
    """Label one report.

    Parameters
    ----------
    findings, impression : str
        The two parts of the report; either may be empty.
    lexicon : Lexicon
        From `training.labels.lexicon.load`.
    rule_set : {"wide", "strict"}
        strict: "no finding" only if the whole impression stands in the lexicon (Zhang et al. 2019). wide: also if every
        sentence of the report is normal.
    accept_no_acute : bool
        Take "no acute abnormality" alone as "no finding", though it does not exclude old disease: a site's decision.

    Returns
    -------
    Label
        The same for the same input. The time grows linearly with the text.
    """
    if len(findings) + len(impression) > MAXIMUM_CHARACTERS:
        return Label(Value.INDETERMINATE, "too-long")
    described, concluded = _read(findings, lexicon), _read(impression, lexicon)
    if not described.text and not concluded.text:
        return Label(Value.INDETERMINATE, "empty")
    if concluded.normal_impression:
        concluded = _Part(True, concluded.text, evidence=[_Said("normal-impression", _clip(concluded.text))])
    told = described.findings + concluded.findings
    tags = _tags(told + described.doubtful + concluded.doubtful)
    if told and concluded.normal_impression and rule_set == "strict":
        return Label(Value.INDETERMINATE, "contradicted", told[0].span, tags)
    if told:
        worst = min(told, key=_severity)
        return Label(Value.FINDING, worst.rule, worst.span, tags)
    doubtful = described.doubtful + concluded.doubtful
    if concluded.normal_impression:
        doubtful = [said for said in doubtful if said.rule != "not-understood"]
    evidence = concluded.evidence + described.evidence
    limited = concluded.limited + described.limited
    if accept_no_acute:
        evidence += [said for said in limited if said.rule == "no-acute-only"]
    decisive = next(iter(doubtful or evidence or limited), None)
    if decisive is None:
        return Label(Value.INDETERMINATE, "nothing-about-lungs", _clip(concluded.text or described.text))
    if doubtful or not evidence:
        return Label(Value.INDETERMINATE, decisive.rule, decisive.span, tags)
    if rule_set == "strict" and not concluded.normal_impression:
        return Label(Value.INDETERMINATE, "not-strictly-normal", _clip(concluded.text), tags)
    return Label(Value.NO_FINDING, decisive.rule, decisive.span, tags)


def _severity(said: _Said) -> int:
    return TAGS.index(said.tag) if said.tag else len(TAGS)


def _tags(said: Sequence[_Said]) -> tuple[str, ...]:
    present = {one.tag for one in said}
    return tuple(tag for tag in TAGS if tag in present)


def _clip(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAXIMUM_SPAN else text[: _MAXIMUM_SPAN - 1] + "…"


def _read(text: str, lexicon: Lexicon) -> _Part:
    """Read findings or impression, sentence by sentence."""
    text = normalise(text)
    part = _Part()
    elsewhere = False
    strict: list[bool] = []
    for sentence in _sentences(text):
        tokens = _without_heading(tokenise(sentence), lexicon)
        if not any(token.text.isalpha() or token.text == REMOVED for token in tokens):
            continue
        part.text = part.text or text.strip()
        reader = _Sentence(sentence, tokens, lexicon)
        if reader.is_heading:
            elsewhere = reader.regions == {"elsewhere"}
        reader.add_to(part, elsewhere=elsewhere)
        strict.append(lexicon.is_strictly_normal(tokens))
    part.normal_impression = bool(strict) and all(strict)
    return part


def _sentences(text: str) -> Iterator[str]:
    for match in _SENTENCE.finditer(text):
        yield _mend_blanks(match[0])


def _mend_blanks(sentence: str) -> str:
    """A blank between Chinese words separates statements; between single characters it is only typography."""
    if not _CHINESE.search(sentence):
        return sentence
    pieces = _BLANKS.split(sentence.strip())
    mended = [pieces[0]]
    for before, piece in itertools.pairwise(pieces):
        if not (before and piece and _CHINESE.match(before[-1]) and _CHINESE.match(piece[0])):
            mended.append(" ")
        elif len(before) > 1 and len(piece) > 1:
            mended.append(",")
        mended.append(piece)
    return "".join(mended)


def _without_heading(tokens: list[Token], lexicon: Lexicon) -> list[Token]:
    """Drop "Impression:" and the like; "Indication: …" with all that follows."""
    for at, token in enumerate(tokens[:6]):
        if token.text == ":":
            heading = tuple(token.text for token in tokens[:at] if token.text.isalpha())
            if heading in lexicon.skipped_sections:
                return []
            return tokens[at + 1 :] if heading in lexicon.prefixes else tokens
    return tokens


@dataclass(frozen=True)
class _Word:
    """A phrase of a sentence with what the lexicon says of it."""

    entry: Entry
    start: int
    end: int
    chinese: bool

    @property
    def kind(self) -> Kind:
        return self.entry.kind

    def has(self, role: str) -> bool:
        return role in self.entry.roles


class _Sentence:
    """Reads one sentence from left to right; what a negation covers is the whole difficulty."""

    def __init__(self, text: str, tokens: list[Token], lexicon: Lexicon) -> None:
        self._text = text
        self._words = list(_words(tokens, lexicon))
        self._gap = any(token.text == REMOVED for token in tokens)
        self._findings: list[_Said] = []
        self._doubtful: list[_Said] = []
        self._normal = False  # something is said to be normal, or nothing abnormal was found
        self._lungs_clear = False
        self._no_acute = self._no_change = False
        self._statements = 0
        self.regions: set[str] = set()
        # State of the clause that is being read.
        self._negation: _Word | None = None
        self._denied = 0  # what the negation has covered so far
        self._limit = False
        self._asserted: list[tuple[int, _Word]] = []  # place in _findings
        self._has_verb = False
        for at, word in enumerate(self._words):
            self._take(at, word)
        self._end_negation()

    @property
    def is_heading(self) -> bool:
        """Only names a part of the body: "Lumbar spine." """
        return bool(self.regions) and all(word.kind in (Kind.ANATOMY, Kind.FILLER) for word in self._words)

    def add_to(self, part: _Part, *, elsewhere: bool) -> None:
        """Add what the sentence says to its part of the report."""
        part.findings += self._findings
        part.doubtful += self._doubtful
        sentence = _clip(self._text)
        if self._gap and not self._statements and any(word.has("reported") for word in self._words):
            part.doubtful.append(_Said("not-understood", sentence))
        whole = not self.regions and not self._gap
        about_lungs = self._normal and ("lung" in self.regions or whole)
        if not elsewhere and (self._lungs_clear or about_lungs):
            part.evidence.append(_Said("all-normal", sentence))
        if self._no_acute:
            part.limited.append(_Said("no-acute-only", sentence))
        if self._no_change:
            part.limited.append(_Said("no-change-only", sentence))

    def _take(self, at: int, word: _Word) -> None:
        self._statements += word.kind not in _SILENT
        if word.kind is Kind.BREAK or self._begins_clause(at):
            self._begin()
        self._has_verb |= word.has("verbs")
        match word.kind:
            case Kind.BEFORE:
                self._end_negation()
                self._negation = word
            case Kind.NEGATIVE:
                if self._introduces_finding(at):
                    self._negation = word
                else:
                    self._normal = True
            case Kind.AFTER:
                self._deny_before(word)
            case Kind.FINDING | Kind.GENERIC:
                self._take_finding(word)
            case Kind.NORMAL:
                self._take_normal(at, word)
            case Kind.LIMIT:
                self._limit |= self._negation is not None
            case Kind.CHANGE:
                self._no_change = True
                self._denied += 1
                self._end_negation()  # "no change in cardiomegaly" does not deny cardiomegaly
            case Kind.IMPROVED:
                if self._negation:
                    self._denied += 1
                    self._find("not-improved", self._negation.start, word.end)
                else:
                    self._doubtful.append(self._said("change", word))
            case Kind.DOUBT:
                if not self._negation:
                    self._find("doubt", word.start, word.end)
            case Kind.CANNOT_EXCLUDE:
                self._find("doubt", word.start, word.end)
            case Kind.REST:
                self._find("rest-is-normal", word.start, word.end)
            case Kind.ADVICE:
                self._doubtful.append(self._said("advice", word))
            case Kind.UNSETTLED:
                self._doubtful.append(self._said("unsettled", word))
            case Kind.ANATOMY:
                self.regions.add(word.entry.detail)
            case Kind.UNKNOWN:
                self._doubtful.append(self._said("not-understood", word))

    def _take_finding(self, word: _Word) -> None:
        if self._negation:
            self._denied += 1
            self._deny(word)
        elif word.entry.detail == "quality":
            self._doubtful.append(_Said("quality", self._text[word.start : word.end], "quality"))
        else:
            self._asserted.append((len(self._findings), word))
            self._findings.append(_Said("finding", self._text[word.start : word.end], word.entry.detail))

    def _deny(self, word: _Word) -> None:
        if word.kind is Kind.GENERIC:
            self._no_acute |= self._limit
            self._normal |= not self._limit
        self._lungs_clear |= word.has("parenchymal")

    def _deny_before(self, word: _Word) -> None:
        """ "… is not seen" denies what its clause has asserted."""
        if not self._asserted and not self._denied:
            self._doubtful.append(self._said("not-understood", word))
        for place, finding in reversed(self._asserted):
            del self._findings[place]
            self._deny(finding)
        self._asserted.clear()

    def _take_normal(self, at: int, word: _Word) -> None:
        if self._negation and not self._denied and self._only_fillers_since_negation(at):
            self._denied += 1
            self._find("not-normal", self._negation.start, word.end)
            return
        if self._denied:
            self._end_negation()
        self._normal = True

    def _begin(self) -> None:
        """A new clause: no negation reaches into it."""
        self._end_negation()
        self._asserted.clear()
        self._has_verb = False

    def _end_negation(self) -> None:
        if self._negation and not self._denied:
            self._doubtful.append(self._said("not-understood", self._negation))
        self._negation, self._denied, self._limit = None, 0, False

    def _is_joint(self, word: _Word) -> bool:
        return word.kind is Kind.COMMA or word.has("joints")

    def _begins_clause(self, at: int) -> bool:
        """Whether a new statement begins; a comma or "and" may as well continue a list."""
        word, before = self._words[at], self._words[at - 1] if at else None
        if before is not None and before.chinese:
            # Often without commas: a side or a part of the body straight after a finding begins a statement.
            after_finding = before.kind in (Kind.FINDING, Kind.GENERIC)
            return word.kind is Kind.COMMA or (
                word.chinese and after_finding and (word.kind is Kind.ANATOMY or word.has("assertive"))
            )
        if not self._is_joint(word):
            return False
        following = self._words[at + 1 : at + 2]
        if following and following[0].has("assertive"):
            return True
        for place in range(at + 1, len(self._words)):
            word = self._words[place]
            if self._is_joint(word) or word.kind is Kind.BREAK:
                return False
            if word.has("verbs"):
                after = self._words[place + 1] if place + 1 < len(self._words) else None
                reports = after is None or after.has("reported") or after.kind is Kind.AFTER
                return self._has_verb or not reports
        return False

    def _introduces_finding(self, at: int) -> bool:
        for word in self._words[at + 1 :]:
            if word.kind in (Kind.FINDING, Kind.GENERIC, Kind.LIMIT):
                return True
            if word.kind not in (Kind.FILLER, Kind.ANATOMY):
                return False
        return False

    def _only_fillers_since_negation(self, at: int) -> bool:
        place = at - 1
        while self._words[place] is not self._negation:
            if self._words[place].kind is not Kind.FILLER:
                return False
            place -= 1
        return True

    def _find(self, rule: str, start: int, end: int) -> None:
        self._findings.append(_Said(rule, _clip(self._text[start:end])))

    def _said(self, rule: str, word: _Word) -> _Said:
        return _Said(rule, _clip(self._text[word.start : word.end]))


def _words(tokens: list[Token], lexicon: Lexicon) -> Iterator[_Word]:
    """Split a sentence into known phrases, longest first, and unknown words; signs other than commas say nothing."""
    at = 0
    while at < len(tokens):
        token = tokens[at]
        entry, length = lexicon.match(tokens, at)
        if entry.kind is Kind.UNKNOWN and token.text == ",":
            entry = _COMMA
        elif entry.kind is Kind.UNKNOWN and token.text.replace(".", "").isdigit():
            entry = _NUMBER
        if entry.kind is not Kind.UNKNOWN or token.text.isalnum() or token.text == "?":
            chinese = _CHINESE.match(token.text) is not None
            yield _Word(entry, token.start, tokens[at + length - 1].end, chinese)
        at += length
