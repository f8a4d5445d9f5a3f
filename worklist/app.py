"""The application: rooms, static files, and what holds for all of them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from clearfilm.child_pool import Limits
from clearfilm.config import Config
from clearfilm.dicom.full_depth import FullDepth
from clearfilm.oidc_settings import Oidc
from db.session import Database
from worklist import access, answers
from worklist.denials import Denials
from worklist.events import Hub
from worklist.rooms import (
    case,
    console,
    console_alerts,
    console_audit,
    console_callers,
    console_configuration,
    console_destinations,
    console_models,
    console_policy,
    console_queues,
    entry,
    films,
    health,
    settings,
    sign_on,
    stream,
    studies,
    users,
)
from worklist.security import Security
from worklist.services import Services
from worklist.templates import STATIC, Templates

if TYPE_CHECKING:
    from worklist.oidc.provider import Provider

THREADS = 12
# What readers open first, with its parts: a fifth of a second to compile.
_FIRST_PAGES = (
    *("base.html", "parts/live.html", "worklist.html", "list/choices.html", "list/rows.html", "list/details.html"),
    *("case.html", "case/panel.html"),
)
# Each module has a `room`: a router whose routes say who may call them.
ROOMS = (
    health.room,
    entry.room,
    sign_on.room,
    settings.room,
    stream.room,
    studies.room,
    users.room,
    console.room,
    console_alerts.room,
    console_audit.room,
    console_callers.room,
    console_configuration.room,
    console_destinations.room,
    console_models.room,
    console_policy.room,
    console_queues.room,
    case.room,
    films.room,
)


def create_app(config: Config, database: Database, config_path: Path | None = None) -> FastAPI:
    """The web pages of a node.

    Parameters
    ----------
    config : Config
        The whole configuration.
    database : Database
        Of this process, with the present schema.
    config_path : pathlib.Path, optional
        The configuration's file, for the room that shows it.

    Returns
    -------
    fastapi.FastAPI
        An ASGI application; its events flow while it is served.

    Raises
    ------
    StartupError
        If a route does not say who may call it, or a file of the section `worklist.oidc` cannot be used.
    """
    limits = Limits(config.worker.decode_memory_megabytes, config.worker.decode_timeout_seconds)
    services = Services(
        config,
        database,
        Hub(database),
        Denials(),
        Templates(),
        FullDepth(limits),
        config_path=config_path,
        provider=_provider(config.worklist.oidc),
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        # As many as there are connections to the database; more would wait for one with a thread each.
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        services.hub.start()
        services.films.start()
        await run_in_threadpool(services.templates.prepare, *_FIRST_PAGES, language=config.worklist.language)
        yield
        services.hub.close()
        await run_in_threadpool(services.films.close)

    app = FastAPI(
        title="Clearfilm",
        dependencies=[Depends(access.guard)],
        lifespan=lifespan,
        openapi_url=None,  # pages for people; and its own pages would load scripts from elsewhere
    )
    app.state.services = services
    answers.install(app)
    for room in ROOMS:
        access.include(app, room)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Security)
    return app


def _provider(section: Oidc) -> "Provider | None":
    if section.issuer is None:
        return None
    # Imported here: most sites have none, and its libraries take time and memory.
    from worklist.oidc.provider import Provider

    return Provider(section)
