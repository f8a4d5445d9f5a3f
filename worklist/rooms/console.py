"""The admin console: its navigation, and the overview of the node."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from clearfilm.config import Config
from clearfilm.counts import NN_
from clearfilm.forecast import days_left
from db import alerts, associations, operations, processes, registry, senders, switches
from db.alerts import Alert, AlertKind
from db.processes import Seen
from db.switches import Stage, Switch
from worklist.access import ADMINS, AUDITORS, allow
from worklist.page import Page, PageMaker, audited
from worklist.rooms.alert_words import KINDS, STAGES, sentence
from worklist.templates import N_

room = APIRouter(prefix="/admin")

# The rooms of the console: path, words, who sees it.
CONSOLE = (
    ("/admin", N_("Overview"), ADMINS),
    ("/admin/alerts", N_("Alerts"), ADMINS),
    ("/admin/queues", N_("Queues"), ADMINS),
    ("/admin/callers", N_("Callers"), ADMINS),
    ("/admin/destinations", N_("Destinations"), ADMINS),
    ("/admin/models", N_("Models"), ADMINS),
    ("/admin/policy", N_("Triage policy"), ADMINS),
    ("/admin/configuration", N_("Configuration"), ADMINS),
    ("/admin/users", N_("Users"), ADMINS),
    ("/admin/audit", N_("Audit trail"), AUDITORS),
)
_PAUSES = {"storescp": Stage.RECEIVE, "worker": Stage.ANALYSE, "deliver": Stage.SEND}
_FORECAST_DAYS = timedelta(days=7)


@dataclass(frozen=True)
class Badge:
    """One thing at a glance: `state` is good, warn, bad or off."""

    name: str
    state: str
    words: str
    link: str | None = None


def render(page: PageMaker, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page of the console, with its navigation."""
    links = [(path, page.say(label)) for path, label, roles in CONSOLE if page.visit.role in roles]
    return page.render(template, status, console=links, **values)


@room.get("", dependencies=[audited("node shown")])
@allow(*ADMINS)
def show(page: Page) -> Response:
    """What the node is doing."""
    return render(page, "admin/overview.html", **_facts(page))


@room.get("/overview")
@allow(*ADMINS)
def part(page: Page) -> Response:
    """The same without the frame; pages ask for it by themselves. Holds nothing about patients."""
    return page.render("admin/overview_part.html", **_facts(page))


def _facts(page: PageMaker) -> dict[str, Any]:
    config = page.services.config
    with page.services.database.read() as session:
        now = page.services.database.now(session)
        running = processes.seen(session, now=now)
        paused = switches.paused(session)
        opened = alerts.open_alerts(session)
        names = [entry.name for entry in config.senders]
        names += [entry.name for entry in associations.trusted(session)]
        oldest = operations.oldest_open(session)
        waiting = now - oldest if oldest else timedelta(0)
        return {
            "badges": [
                *badges(page, session, config, running, paused, waiting, now),
                *destination_badges(page, config, opened),
            ],
            "alerts": [(alert, sentence(page, alert)) for alert in opened],
            "paused": [(page.say(STAGES[stage]), switch) for stage, switch in sorted(paused.items())],
            "senders": [
                (name, at, senders.films_since(session, name, now - timedelta(hours=24)), ago(page, now, at))
                for name, at in senders.last_films(session, names).items()
            ],
            "processes": [(_kind(page, one), one, _place(one), _detail(one)) for one in running],
            "sizes": operations.sizes(session),
            "model": registry.active(session),
            "denied": associations.count_denied(session, now - timedelta(hours=24)),
            "now": now,
        }


def _kind(page: PageMaker, process: Seen) -> str:
    return page.say(KINDS[process.kind]) if process.kind in KINDS else process.kind


def _detail(process: Seen) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(process.detail.items()) if value not in (None, ""))


def _place(process: Seen) -> str:
    """Host and number of a process; what is between tells containers of one host apart."""
    return f"{process.owner.split(':')[0]}:{process.owner.rpartition(':')[2]}"


def ago(page: PageMaker, now: datetime, at: datetime | None) -> str:
    """How long ago, in words."""
    return page.say(N_("never")) if at is None else duration(page, now - at)


def duration(page: PageMaker, length: timedelta) -> str:
    """A length of time in its largest useful unit."""
    seconds = max(0, round(length.total_seconds()))
    if seconds < 120:
        return page.say(N_("{n} s"), n=seconds)
    if seconds < 7200:
        return page.say(N_("{n} min"), n=seconds // 60)
    if seconds < 172_800:
        return page.say(N_("{n} h"), n=seconds // 3600)
    return page.say(N_("{n} days"), n=seconds // 86_400)


def badges(
    page: PageMaker,
    session: Session,
    config: Config,
    running: Sequence[Seen],
    paused: dict[Stage, Switch],
    waiting: timedelta,
    now: datetime,
) -> Iterator[Badge]:
    """Everything that must be well for films to get their answers."""
    for kind, label in KINDS.items():
        yield _process_badge(page, kind, label, [one for one in running if one.kind == kind], paused, config)
    yield Badge(page.say(N_("Database")), "good", _database_words(page))
    yield disk_badge(page, session, config, now)
    gpus = sorted({str(one.detail.get("device")) for one in running if "cuda" in str(one.detail.get("device"))})
    if gpus:
        yield Badge("GPU", "good", gpus[0])
    stuck = waiting > timedelta(minutes=config.alerts.stuck_minutes)
    words = duration(page, waiting) if waiting else page.say(N_("nothing waits"))
    yield Badge(page.say(N_("Oldest waiting")), "warn" if stuck else "good", words, "/admin/queues")


def destination_badges(page: PageMaker, config: Config, opened: Sequence[Alert]) -> Iterator[Badge]:
    """Whether results get to each destination."""
    away = {alert.subject for alert in opened if alert.kind is AlertKind.DESTINATION}
    for entry in config.destinations:
        words = page.say(N_("results do not get there") if entry.name in away else N_("no trouble"))
        yield Badge(entry.name, "bad" if entry.name in away else "good", words, "/admin/destinations")


def _process_badge(
    page: PageMaker, kind: str, label: str, of_kind: Sequence[Seen], paused: dict[Stage, Switch], config: Config
) -> Badge:
    alive = sum(not one.is_silent for one in of_kind)
    wanted = config.node.processes if kind == "storescp" else 1
    words = page.say(N_("runs")) if wanted == 1 else page.say(N_("{n} of {all} run"), n=alive, all=wanted)
    state = "good" if alive >= wanted else "warn"
    if not alive:
        state, words = "bad", page.say(N_("does not run"))
    elif _PAUSES.get(kind) in paused:
        state, words = "warn", page.say(N_("paused"))
    return Badge(page.say(label), state, words, "/admin/queues" if _PAUSES.get(kind) in paused else None)


def _database_words(page: PageMaker) -> str:
    database = page.services.database
    if not database.is_sqlite:
        return "PostgreSQL"
    size = Path(str(database.url.database)).stat().st_size
    return f"SQLite, {size / 1e6:.0f} MB"


def disk_badge(page: PageMaker, session: Session, config: Config, now: datetime) -> Badge:
    """Free space, and for how long it will last."""
    usage = shutil.disk_usage(config.data_folder)
    mark = config.disk.low_water(usage.total)
    words = page.say(N_("{free} GB free"), free=f"{usage.free / 1e9:.0f}")
    if usage.free < mark:
        return Badge(page.say(N_("Disk")), "bad", words)
    left = days_left(alerts.disk_samples(session, now - _FORECAST_DAYS), mark)
    if left is None:
        return Badge(page.say(N_("Disk")), "good", words)
    words += ", " + page.say(NN_("lasts {n} day", "lasts {n} days"), n=round(left) if left < 999 else "> 999")
    return Badge(page.say(N_("Disk")), "warn" if left < config.alerts.disk_days else "good", words)
