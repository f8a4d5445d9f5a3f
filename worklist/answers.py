"""Answers to what goes wrong: in words, in the viewer's language, as page, fragment or status."""

import logging
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import URL
from starlette.exceptions import HTTPException

from clearfilm.counts import Counted
from clearfilm.errors import ClearfilmError
from worklist import access
from worklist.access import Denied, Visit
from worklist.page import PageMaker
from worklist.services import Services
from worklist.templates import LANGUAGES, N_

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5
_HTTP_WORDS = {
    400: N_("The request makes no sense."),
    404: N_("There is no such page."),
    405: N_("This page does not take this kind of request."),
}


class Problem(Exception):
    """Something that the person can mend or wait for. `message` is English from the catalogue, `values` fill it."""

    def __init__(self, status: int, message: str | Counted, **values: object) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.values = values


def install(app: FastAPI) -> None:
    """Give the application our answers."""
    app.add_exception_handler(Denied, _denied)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(SQLAlchemyError, _no_database)
    app.add_exception_handler(ClearfilmError, _refused)
    app.add_exception_handler(Exception, crashed)


def _services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def _stranger(request: Request) -> Visit:
    """Enough of a visit to answer when the database cannot tell more."""
    language = request.cookies.get("language", "")
    known = language if language in LANGUAGES else _services(request).config.worklist.language
    return Visit(None, "", "", known, None, None)


async def _visit(request: Request) -> Visit:
    try:
        return await run_in_threadpool(access.visit_of, request, _services(request))
    except SQLAlchemyError:
        return _stranger(request)


async def _denied(request: Request, error: Exception) -> Response:
    assert isinstance(error, Denied)
    page = PageMaker(request, error.visit, _services(request))
    if error.reason == Denied.ROLE:
        return _answer(page, 403, page.say("Your role does not include this page."))
    if error.reason == Denied.FORM:
        return _answer(
            page, 403, page.say("This page was opened too long ago, or elsewhere. Load it again and repeat the change.")
        )
    if error.reason == Denied.ELSEWHERE:
        # Loaded again by our own page, the browser sends its cookie.
        return page.render("again.html", 401)
    return _to_login(page, error.reason)


def _to_login(page: PageMaker, reason: str) -> Response:
    """Pages go to the login and come back afterwards; everything else hears 401."""
    came_from = page.request.headers.get("hx-current-url")
    is_page = page.request.method == "GET" and "text/html" in page.request.headers.get("accept", "")
    target = "/login?next=" + quote(_path(came_from or str(page.request.url)), safe="")
    if reason == Denied.EXPIRED:
        target += "&ended=1"
    if came_from is not None:
        return Response(status_code=401, headers={"HX-Redirect": target})
    if is_page:
        return RedirectResponse(target, 303)
    return _answer(page, 401, page.say("Log in first."))


def _path(url: str) -> str:
    found = URL(url)
    return found.path + (f"?{found.query}" if found.query else "")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    page = PageMaker(request, await _visit(request), _services(request))
    return _answer(page, error.status, page.say(error.message, **error.values))


async def _refused(request: Request, error: Exception) -> Response:
    """Our own errors say what is wrong, without patient data."""
    page = PageMaker(request, await _visit(request), _services(request))
    return _answer(page, 400, str(error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    page = PageMaker(request, await _visit(request), _services(request))
    names = sorted({str(fault["loc"][-1]) for fault in error.errors() if fault["loc"]})
    # Names of our own parameters; what was sent for them is not repeated.
    text = page.say("The address or the form has values that make no sense: {names}.", names=", ".join(names))
    return _answer(page, 422, text)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    visit = await _visit(request)
    page = PageMaker(request, visit, _services(request))
    if visit.login is None:
        return _to_login(page, Denied.NO_LOGIN)
    words = _HTTP_WORDS.get(error.status_code, _HTTP_WORDS[400])
    return _answer(page, error.status_code, page.say(words))


async def _no_database(request: Request, error: Exception) -> Response:
    logger.error("database not usable", exc_info=error)
    page = PageMaker(request, _stranger(request), _services(request))
    words = page.say("The database does not answer. This page tries again by itself.")
    answer = _answer(page, 503, words, retry=RETRY_SECONDS)
    answer.headers["Retry-After"] = str(RETRY_SECONDS)
    return answer


def _answer(page: PageMaker, status: int, words: str, *, retry: int | None = None) -> Response:
    accept = page.request.headers.get("accept", "")
    if "hx-request" in page.request.headers:
        return page.render("notice.html", status, words=words)
    if "text/html" in accept:
        return page.render("problem.html", status, words=words, retry=retry)
    body: dict[str, Any] = {"title": words, "status": status}
    return JSONResponse(body, status, media_type="application/problem+json")


def crashed(request: Request, error: Exception) -> Response:
    """Our own mistake: an incident number for the log, nothing of the inside."""
    logger.error("page failed", exc_info=error, extra={"route": access.route_name(request)})
    page = PageMaker(request, _stranger(request), _services(request))
    answer = _answer(page, 500, page.say("Something went wrong in the node; it is in the log."))
    assert isinstance(answer, HTMLResponse | JSONResponse)
    return answer
