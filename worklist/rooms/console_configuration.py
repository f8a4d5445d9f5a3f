"""Configuration: every key with its origin; and what a changed file would do.

Nothing is written from here. The file belongs to root and its folder is read-only for the node
(`ProtectSystem=strict`), so that whoever takes over the web pages cannot change whom the node trusts. The page gives
the command instead.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import Response

from clearfilm import config as configuration
from clearfilm.errors import ConfigurationError
from worklist import settings_table
from worklist.access import ADMINS, allow
from worklist.page import Page, PageMaker, audited
from worklist.rooms.alert_words import KINDS
from worklist.rooms.console import render
from worklist.templates import N_

room = APIRouter(prefix="/admin/configuration")

MOST = 200_000
ORIGINS = {
    settings_table.DEFAULT: N_("default"),
    settings_table.FILE: N_("file"),
    settings_table.ENVIRONMENT: N_("environment"),
}


@room.get("", dependencies=[audited("configuration shown")])
@allow(*ADMINS)
def show(page: Page) -> Response:
    """Every key."""
    return render(page, "admin/configuration.html", **_facts(page), tried=None)


@room.post("", dependencies=[audited("configuration tried")])
@allow(*ADMINS)
def attempt(page: Page, text: Annotated[str, Form(max_length=MOST)]) -> Response:
    """What this text would do as the configuration's file; nothing is changed, and nothing of it is kept."""
    path = page.services.config_path or Path("config.yaml")
    faults, config = configuration.try_text(text, path.parent)
    found = settings_table.changes(page.services.config, config) if config else []
    restart = [page.say(KINDS[name]) if name in KINDS else name for name in settings_table.to_restart(found)]
    tried: dict[str, Any] = {
        "faults": faults,
        "changes": found,
        "restart": restart,
        "command": f"install -m 640 -b NEW.yaml {shlex.quote(str(path))} && systemctl restart clearfilm",
        "text": text,
    }
    return render(page, "admin/configuration.html", **_facts(page), tried=tried)


def _facts(page: PageMaker) -> dict[str, Any]:
    path = page.services.config_path
    try:
        in_file = configuration.file_values(path) if path else {}
        trouble = None
    except ConfigurationError as error:
        in_file, trouble = {}, str(error)
    rows = settings_table.rows(page.services.config, in_file)
    sections: dict[str, list[settings_table.Row]] = {}
    for row in rows:
        sections.setdefault(row.key.partition(".")[0], []).append(row)
    return {
        "config_path": path,
        "trouble": trouble,
        "sections": sections,
        "origins": {origin: page.say(label) for origin, label in ORIGINS.items()},
        "say": page.say,
    }
