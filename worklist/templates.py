"""Jinja2 templates in the viewer's language: escaped, with gettext, and with times in the viewer's zone."""

import gettext
import hashlib
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from clearfilm.counts import Counted

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
LANGUAGES: Mapping[str, str] = {"en": "English", "zh": "中文"}


def catalogue(language: str) -> gettext.NullTranslations:
    """The translations of a language; English is what stands in the code."""
    found = gettext.NullTranslations()
    for path in sorted((FOLDER / "locale" / language).glob("*.po")):
        with path.open("rb") as source:
            entries = read_po(source, locale=language)
        compiled = io.BytesIO()
        write_mo(compiled, entries)
        compiled.seek(0)
        room = gettext.GNUTranslations(compiled)
        room.add_fallback(found)
        found = room
    return found


def N_(message: str) -> str:  # noqa: N802 - the name that gettext's tools look for
    """Mark a sentence for the catalogue that is translated later."""
    return message


class Templates:
    """One environment for each language; compiled templates stay in memory."""

    def __init__(self) -> None:
        self._catalogues = {language: catalogue(language) for language in LANGUAGES}
        self._environments = {language: self._environment(language) for language in LANGUAGES}

    def prepare(self, *names: str, language: str) -> None:
        """Compile some pages now, so that the first visitor need not wait for it."""
        for name in names:
            self._environments[language].get_template(name)

    def render(self, name: str, language: str, context: Mapping[str, object]) -> str:
        """A page as text. Every value in it is escaped unless a template says otherwise."""
        return self._environments[language].get_template(name).render(context)

    def translate(self, language: str, message: str | Counted, **values: object) -> str:
        """A sentence of the code in the viewer's language; `{name}` in it takes a value."""
        found = self._catalogues[language]
        if isinstance(message, Counted):
            words = found.ngettext(message.one, message.several, message.number(values))
        else:
            words = found.gettext(message)
        return words.format(**values) if values else words

    def _environment(self, language: str) -> Environment:
        environment = Environment(
            loader=FileSystemLoader(FOLDER / "html"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.i18n"],
        )
        found = self._catalogues[language]
        environment.install_gettext_callables(found.gettext, found.ngettext, newstyle=True)  # type: ignore[attr-defined]
        environment.filters["shown"] = shown
        environment.globals["static"] = static
        environment.globals["languages"] = LANGUAGES
        environment.globals["language"] = language
        return environment


# Marks that reorder, hide or break the text around them: shown as what they are.
_INVISIBLE = frozenset(
    "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)


def shown(value: object, longest: int = 200) -> str:
    """Received text made harmless to read: control and direction marks become visible, its length is bounded."""
    text = "" if value is None else str(value)
    cut = text[:longest]
    safe = "".join(f"‹U+{ord(c):04X}›" if c in _INVISIBLE or not (c.isprintable()) else c for c in cut)
    return safe + ("…" if len(text) > longest else "")


@cache
def static(name: str) -> str:
    """URL of a static file; it changes with the file, so that browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def zone(name: str | None) -> ZoneInfo:
    """The time zone of this name; UTC if there is none, since a browser may send anything."""
    try:
        return ZoneInfo(name) if name else ZoneInfo("UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def local_time(moment: datetime, where: ZoneInfo) -> str:
    """`2026-01-31 14:05` in the viewer's zone."""
    return moment.astimezone(UTC).astimezone(where).strftime("%Y-%m-%d %H:%M")
