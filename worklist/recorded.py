"""English sentences as the node writes them down, with values in them, told in the viewer's language."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

Say = Callable[..., str]

# Longer texts are none of our sentences; patterns need not walk through them.
LONGEST: Final = 1000
_FIELD = re.compile(r"\\\{([a-z]+)\\\}")


class Recorded:
    """Knows sentences again by their pattern.

    Parameters
    ----------
    *messages : str
        Of the catalogue; `{name}` in them stands for any value. The first that fits counts. Values called `reason` or
        `reasons` are such sentences themselves, the latter several with `; ` between them.
    """

    def __init__(self, *messages: str) -> None:
        self._plain = {message for message in messages if "{" not in message}
        self._patterns = [(_pattern(message), message) for message in messages if "{" in message]

    def words(self, say: Say, text: str | None) -> str:
        """The sentence in the viewer's language; any other text as it is."""
        if not text:
            return ""
        if text in self._plain:
            return say(text)
        if len(text) <= LONGEST:
            for pattern, message in self._patterns:
                if found := pattern.fullmatch(text):
                    values = {name: self._value(say, name, value) for name, value in found.groupdict().items()}
                    return say(message, **values)
        return text

    def _value(self, say: Say, name: str, value: str) -> str:
        if name == "reason":
            return self.words(say, value)
        if name == "reasons":
            return "; ".join(self.words(say, part) for part in value.split("; "))
        return value


def _pattern(message: str) -> re.Pattern[str]:
    return re.compile(_FIELD.sub(r"(?P<\1>.+?)", re.escape(message)), re.DOTALL)
