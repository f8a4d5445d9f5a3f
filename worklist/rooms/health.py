"""Open to monitoring: is the process alive, can the node work."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from worklist.access import allow
from worklist.services import NodeServices

room = APIRouter()


@room.get("/livez")
@allow(anybody=True)
def live() -> PlainTextResponse:
    """This process answers."""
    return PlainTextResponse("ok\n")


@room.get("/readyz")
@allow(anybody=True)
def ready(services: NodeServices) -> PlainTextResponse:
    """The database answers."""
    try:
        with services.database.read() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return PlainTextResponse("database: no answer\n", 503)
    return PlainTextResponse("ok\n")
