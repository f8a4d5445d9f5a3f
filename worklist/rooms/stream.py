"""The event stream of open pages."""

from collections.abc import AsyncIterable

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from worklist import access
from worklist.access import EVERYBODY, CurrentVisit, allow
from worklist.events import MOST_STUDIES
from worklist.services import NodeServices

room = APIRouter()


@room.get("/events", response_class=EventSourceResponse)
@allow(*EVERYBODY)
async def events(request: Request, visit: CurrentVisit, services: NodeServices) -> AsyncIterable[ServerSentEvent]:
    """What changed, until the login ends.

    `studies` with the numbers of changed studies; `refresh`: load everything anew, because more changed than
    is worth naming, or the connection was lost; `node`: anything else changed; `logout`: the login has ended.
    """
    again = "last-event-id" in request.headers
    number = 1
    yield ServerSentEvent(event="refresh" if again else "hello", raw_data="", id=str(number), retry=1000)
    async for news in services.hub.listen():
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
