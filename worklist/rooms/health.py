"""For monitoring: is the process alive, can the node work, and what has it counted. Nothing about patients."""

import ipaddress
import shutil
from collections.abc import Iterator

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clearfilm import __version__, metrics
from db import overview, processes
from db.models import JobState
from worklist.access import allow
from worklist.answers import Problem
from worklist.services import NodeServices, Services
from worklist.templates import N_

room = APIRouter()

# Without one of these films are not taken, or nothing becomes of them.
NEEDED = ("storescp", "worker", "deliver", "schedule")


@room.get("/livez")
@allow(anybody=True)
def live() -> PlainTextResponse:
    """This process answers."""
    return PlainTextResponse("ok\n")


@room.get("/healthz")
@room.get("/readyz")
@allow(anybody=True)
def ready(services: NodeServices) -> PlainTextResponse:
    """One line for each thing that the node needs: ok or failed."""
    checks = checked(services)
    text = "".join(f"{name}: {'ok' if good else 'failed'}\n" for name, good in checks.items())
    return PlainTextResponse(text, 200 if all(checks.values()) else 503)


def checked(services: Services) -> dict[str, bool]:
    """Database, disk, and a heartbeat of each kind of process on whatever machine."""
    usage = shutil.disk_usage(services.config.data_folder)
    checks = {"database": True, "disk": usage.free >= services.config.disk.low_water(usage.total)}
    alive: set[str] = set()
    try:
        with services.database.read() as session:
            found = processes.seen(session, now=services.database.now(session))
        alive = {process.kind for process in found if not process.is_silent}
    except SQLAlchemyError:
        checks["database"] = False
    return checks | {kind: kind in alive for kind in NEEDED}


@room.get("/metrics")
@allow(anybody=True)
def show_metrics(request: Request, services: NodeServices) -> Response:
    """Prometheus' text format; for this machine only, and not through a proxy."""
    host = request.client.host if request.client else ""
    forwarded = "x-forwarded-for" in request.headers or "forwarded" in request.headers
    if forwarded or not _is_loopback(host):
        raise Problem(403, N_("Only this machine may read the metrics."))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeCollector(services))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _NodeCollector:
    """Everything from the database: what was counted, and what is now."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """All metrics of the node."""
        database = self._services.database
        with database.read() as session:
            yield from _totals(session)
            now = database.now(session)
            counts = overview.counts(session, now=now)
            found = processes.seen(session, now=now)
        yield _gauge("clearfilm_build_info", "Version of the program.", [({"version": __version__}, 1.0)])
        model = counts["model"]
        if model:
            labels = {"model": model["name"], "version": model["version"]}
            yield _gauge("clearfilm_model_info", "The active model.", [(labels, 1.0)])
        yield _gauge(
            "clearfilm_queue_jobs",
            "Jobs by kind and state.",
            [
                ({"kind": kind, "state": state}, states.get(state, 0))
                for kind, states in counts["jobs"].items()
                for state in JobState
            ],
        )
        yield _gauge(
            "clearfilm_queue_oldest_seconds", "Age of the oldest job.", [({}, counts["oldest_waiting_seconds"])]
        )
        yield _gauge(
            "clearfilm_deliveries",
            "Results by destination and state.",
            [
                ({"peer": peer, "state": state}, number)
                for peer, states in counts["deliveries"].items()
                for state, number in states.items()
            ],
        )
        yield _gauge(
            "clearfilm_process_heartbeat_timestamp_seconds",
            "When a process of this kind was seen last.",
            [
                ({"kind": kind}, max(p.seen_at.timestamp() for p in found if p.kind == kind))
                for kind in sorted({p.kind for p in found})
            ],
        )
        associations = sum(p.detail.get("associations", 0) for p in found if not p.is_silent)
        yield _gauge("clearfilm_storescp_associations_active", "Open connections of senders.", [({}, associations)])
        free = shutil.disk_usage(self._services.config.data_folder).free
        yield _gauge("clearfilm_disk_free_bytes", "Free space of the data folder's volume.", [({}, free)])


def _totals(session: Session) -> Iterator[Metric]:
    """The counters and histograms of all processes together; nothing counted yet is 0."""
    values = {(name, tuple(sorted(labels.items()))): value for name, labels, value in processes.totals(session)}
    for own in metrics.REGISTRY.collect():
        metric = Metric(own.name, own.documentation, own.type)
        names = {own.name + suffix for suffix in ("_total", "_bucket", "_sum", "_count")}
        known = [(s.name, tuple(sorted(s.labels.items()))) for s in own.samples if not s.name.endswith("_created")]
        for name, labels in dict.fromkeys([*known, *(key for key in values if key[0] in names)]):
            metric.add_sample(name, dict(labels), values.get((name, labels), 0.0))
        yield metric


def _gauge(name: str, text: str, samples: list[tuple[dict[str, str], float]]) -> Metric:
    metric = Metric(name, text, "gauge")
    for labels, value in samples:
        metric.add_sample(name, labels, value)
    return metric
