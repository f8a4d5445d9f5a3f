"""The configuration as rows: key, value without secrets, origin, purpose; and what differs between two."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from clearfilm.config import ENVIRONMENT_PREFIX, Config

DEFAULT, FILE, ENVIRONMENT = "default", "file", "environment"
# Sections by the processes that read them at their start; whatever is not here concerns them all.
READERS: Mapping[str, tuple[str, ...]] = {
    "node": ("storescp", "worker", "deliver", "worklist"),
    "listener": ("storescp",),
    "senders": ("storescp", "schedule", "worklist"),
    "destinations": ("storescp", "worker", "deliver", "worklist"),
    "study": ("storescp", "worker", "schedule"),
    "worker": ("worker",),
    "heatmap": ("worker",),
    "model": ("worker",),
    "results": ("worker",),
    "retention": ("schedule",),
    "disk": ("storescp", "schedule", "worklist"),
    "worklist": ("worklist",),
    "policy": ("worker", "schedule", "worklist"),
    "retraining": ("schedule",),
    "alerts": ("schedule", "worklist"),
    "reports": ("reports listen",),
    "training": (),
    "promotion": ("worklist",),
}
EVERYBODY = ("storescp", "worker", "deliver", "schedule", "worklist")
_MASK = "•••"


@dataclass(frozen=True)
class Row:
    """One key."""

    key: str
    value: str
    origin: str
    words: str


@dataclass(frozen=True)
class Change:
    """One key that two configurations have differently."""

    key: str
    before: str
    after: str


def rows(config: Config, in_file: Mapping[str, Any]) -> list[Row]:
    """Every key in the order of the configuration's sections.

    Parameters
    ----------
    config : Config
    in_file : mapping
        The keys that the file sets.
    """
    return list(_rows(config, in_file, ()))


def _rows(section: BaseModel, in_file: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Row]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        here = (*path, name)
        own = in_file.get(name)
        if isinstance(value, BaseModel):
            yield from _rows(value, own if isinstance(own, Mapping) else {}, here)
            continue
        origin = ENVIRONMENT if _in_environment(here) else FILE if name in in_file else DEFAULT
        yield Row(".".join(here), _shown(here, value), origin, field.description or "")


def _in_environment(path: tuple[str, ...]) -> bool:
    """Set by its own variable, or by the one of a section around it."""
    names = {ENVIRONMENT_PREFIX + "__".join(path[:length]).upper() for length in range(1, len(path) + 1)}
    return any(name.upper() in names for name in os.environ)


def _shown(path: tuple[str, ...], value: Any) -> str:
    if path == ("database", "url") and value is not None:
        return without_password(str(value))
    if path == ("alerts", "webhook", "url") and value is not None:
        # Such addresses often are secrets themselves.
        return str(value).split("?")[0].split("@")[-1] if "@" in str(value) else str(value).split("?")[0]
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_entry(entry) for entry in value) + "]"
    return str(value)


def _entry(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{name}: {_shown((), part)}" for name, part in value) + "}"
    return str(value)


def without_password(url: str) -> str:
    """A database's address that may be shown."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return _MASK


def changes(before: Config, after: Config) -> list[Change]:
    """What another configuration would change."""
    old = {row.key: row.value for row in rows(before, {})}
    found = [Change(row.key, old[row.key], row.value) for row in rows(after, {}) if old[row.key] != row.value]
    if before.database.url != after.database.url and not any(change.key == "database.url" for change in found):
        found.append(Change("database.url", _MASK, _MASK))  # another password
    return found


def to_restart(found: list[Change]) -> list[str]:
    """Processes that must be started again for these changes."""
    needed = {name for change in found for name in READERS.get(change.key.split(".")[0], EVERYBODY)}
    return [name for name in (*EVERYBODY, "reports listen") if name in needed]
