"""Names of patients: their groups, and the key by which a study is found (characters, letters, pinyin, numbers)."""

import itertools
import os
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

MOST_READINGS: Final = 8
"""Of one name whose characters have several; a surname such as 单 is read in three ways."""
MOST_CHARACTERS: Final = 32
MOST_TERMS: Final = 8
_HAN: Final = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_GAP: Final = re.compile(r"[\s^=]+")


@dataclass(frozen=True)
class PersonName:
    """The component groups of a name (PS3.5 6.2, VR PN), for reading: without carets and equal signs."""

    alphabetic: str
    ideographic: str
    phonetic: str


def person_name(value: str | None) -> PersonName:
    """Split a name as received; a first group of ideographs, as some devices send, counts as the second."""
    groups = [_GAP.sub(" ", group).strip() for group in (value or "").split("=", 2)]
    alphabetic, ideographic, phonetic = (*groups, "", "", "")[:3]
    if not ideographic and _HAN.search(alphabetic):
        alphabetic, ideographic = "", alphabetic
    return PersonName(alphabetic, ideographic.replace(" ", ""), phonetic)


def fold(text: str) -> str:
    """One form for what people type in several: NFKC, no case, no accents, no invisible characters, single blanks."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    kept = (letter for letter in decomposed if letter.isspace() or unicodedata.category(letter)[0] not in "CM")
    return _GAP.sub(" ", unicodedata.normalize("NFC", "".join(kept))).strip()


def search_key(patient_name: str | None, *numbers: str | None) -> str:
    """The text in which a study is looked for.

    Parameters
    ----------
    patient_name : str or None
        (0010,0010) as received.
    *numbers : str or None
        Patient ID, Accession Number and the like.

    Returns
    -------
    str
        Folded parts, each on a line: numbers, the groups of the name with and without blanks, pinyin of
        the ideographic group in full and by initials.
    """
    name = person_name(patient_name)
    parts = [fold(number or "") for number in numbers]
    for group in (name.alphabetic, name.ideographic, name.phonetic):
        folded = fold(group)
        parts += [folded, folded.replace(" ", "")]
    parts += _pinyin(name.ideographic)
    return "\n".join(dict.fromkeys(part for part in parts if part))


def search_terms(text: str) -> list[str]:
    """What must be in the key of a study, all of it, for the study to be found."""
    return fold(text).split(" ")[:MOST_TERMS] if fold(text) else []


def _pinyin(characters: str) -> list[str]:
    """Readings of a name, each in full and by initials."""
    written = "".join(_HAN.findall(characters))[:MOST_CHARACTERS]
    if not written:
        return []
    # Names need the readings of single characters only; the dictionary of phrases would take 45 MB more.
    os.environ.setdefault("PYPINYIN_NO_PHRASES", "1")
    from pypinyin import Style, pinyin

    syllables = pinyin(written, style=Style.NORMAL, heteronym=True, errors="ignore")
    readings = itertools.islice(itertools.product(*syllables), MOST_READINGS)
    found = [form for reading in readings for form in ("".join(reading), "".join(part[0] for part in reading if part))]
    return [fold(form) for form in found]
