"""The event stream of open pages."""

from collections.abc import AsyncIterable

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from worklist import access
from worklist.access import EVERYBODY, CurrentVisit, allow
from worklist.answers import Problem
from worklist.events import MOST_STUDIES
from worklist.services import NodeServices
from worklist.templates import N_

room = APIRouter()


async def _has_room(visit: CurrentVisit, services: NodeServices) -> None:
    """A login has so many streams; each costs a connection and a look at the login now and then."""
    if visit.login is not None and services.hub.is_full(visit.login.login_id):
        raise Problem(429, N_("Too many pages are open with this login. Close some of them."))


@room.get("/events", response_class=EventSourceResponse, dependencies=[Depends(_has_room)])
@allow(*EVERYBODY)
async def events(request: Request, visit: CurrentVisit, services: NodeServices) -> AsyncIterable[ServerSentEvent]:
    """What changed, until the login ends.

    `studies` with the numbers of changed studies; `refresh`: load everything anew, because more changed than
    is worth naming, or the connection was lost; `node`: anything else changed; `logout`: the login has ended.
    """
    again = "last-event-id" in request.headers
    number = 1
    yield ServerSentEvent(event="refresh" if again else "hello", raw_data="", id=str(number), retry=1000)
    async for news in services.hub.listen(visit.login.login_id if visit.login else 0):
        if news is None:
            now = await run_in_threadpool(access.visit_of, request, services)
            if now.login is None:
                yield ServerSentEvent(event="logout", raw_data="")
                return
            yield ServerSentEvent(comment="still here")
            continue
        number += 1
        if len(news.studies) > MOST_STUDIES:
            yield ServerSentEvent(event="refresh", raw_data="", id=str(number))
        elif news.studies and visit.role in access.READERS:
            yield ServerSentEvent(event="studies", data=sorted(news.studies), id=str(number))
        if news.node:
            yield ServerSentEvent(event="node", raw_data="", id=str(number))
