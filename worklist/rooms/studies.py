"""The radiologist's list: page, further rows, live rows, counts, saved views, file, pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from clearfilm.errors import UsageError
from db import listed, listing, policies, readings, views
from db.listing import Filter, Place, Rank, Viewpoint
from db.models import Analysis, Instance, Result, ResultKind, Study
from worklist import csv_text, list_lines, list_query, pictures, templates
from worklist.access import RADIOLOGISTS, READERS, Visit, allow
from worklist.answers import Problem
from worklist.list_lines import Line
from worklist.list_query import ListQuery
from worklist.list_views import UNREAD, Fresh, tabs
from worklist.page import Page, PageMaker, audited
from worklist.pictures import Pictures
from worklist.templates import N_

room = APIRouter()

PAGE_ROWS = 50
WALL_ROWS = 24
MOST_LIVE = 400
MOST_EXPORTED = 10_000


@dataclass(frozen=True)
class Shelf:
    """What the rooms of the list keep in memory."""

    pictures: Pictures = field(default_factory=Pictures)
    counts: Fresh = field(default_factory=Fresh)
    changes: Fresh = field(default_factory=lambda: Fresh(most=30))  # each may be half a megabyte
    names: Fresh = field(default_factory=lambda: Fresh(60.0))


def _shelf(request: Request) -> Shelf:
    state = request.app.state
    if not hasattr(state, "shelf"):
        state.shelf = Shelf()
    found: Shelf = state.shelf
    return found


NodeShelf = Annotated[Shelf, Depends(_shelf)]


@dataclass(frozen=True)
class Asked:
    """A list as one visitor asks for it now."""

    query: ListQuery
    wrong: tuple[str, ...]
    zone: ZoneInfo

    def filter(self, viewpoint: Viewpoint) -> Filter:
        """For the database."""
        return self.query.filter(viewpoint.now, self.zone)


def _asked(request: Request, page: Page) -> Asked:
    pairs = [(name, value) for name, value in request.query_params.multi_items() if name not in _OWN]
    query, wrong = list_query.read(pairs) if pairs else (UNREAD, [])
    return Asked(query, tuple(wrong), templates.zone(page.visit.zone))


AskedList = Annotated[Asked, Depends(_asked)]
# Parameters of our own requests that are no part of a list.
_OWN = frozenset({"ids"})


def front_page(visit: Visit) -> str:
    """Where a user of this role begins."""
    return "/worklist" if visit.role in READERS else "/admin/audit"


@room.get("/worklist", dependencies=[audited("worklist shown")])
@allow(*READERS)
def worklist(page: Page, asked: AskedList, shelf: NodeShelf) -> Response:
    """The list."""
    query, wrong = asked.query, list(asked.wrong)
    with page.services.database.read() as session:
        viewpoint = _viewpoint(page, session)
        try:
            lines, more = _lines(page, session, asked, viewpoint, list_query.key_for(query))
        except (UsageError, ValueError):
            wrong.append("after")
            lines, more = _lines(page, session, asked, viewpoint, None)
        shown = tabs(views.seen_by(session, viewpoint.user_id), page.say)
        stage = _stage(page, session)
        names = shelf.names.get("names", lambda: (listing.senders(session), listing.locations(session)))
    return page.render(
        "worklist.html",
        lines=lines,
        more=more,
        query=query,
        wrong=page.say(list_query.PARAMETERS_IN_WORDS, names=", ".join(wrong)) if wrong else "",
        tabs=shown,
        stage=stage,
        senders=names[0],
        locations=names[1],
        levels=list_query.LEVELS,
        words=list_lines,
        sort_links=_sort_links(query),
        may_read=page.visit.role in RADIOLOGISTS,
        **_row_values(page),
    )


@room.get("/worklist/rows", dependencies=[audited("worklist shown")])
@allow(*READERS)
def further_rows(page: Page, asked: AskedList) -> Response:
    """The rows that come after one."""
    with page.services.database.read() as session:
        viewpoint = _viewpoint(page, session)
        try:
            lines, more = _lines(page, session, asked, viewpoint, list_query.key_for(asked.query))
        except (UsageError, ValueError) as error:
            raise Problem(422, N_("The page does not continue this list; load the list again.")) from error
    return page.render("list/rows.html", lines=lines, more=more, query=asked.query, **_row_values(page))


@room.get("/worklist/changes")
@allow(*READERS)
def changed_rows(
    page: Page, asked: AskedList, shelf: NodeShelf, ids: Annotated[str, Query(max_length=8192)]
) -> Response:
    """Those of some studies that belong to the list; the page that asks was recorded when it was shown.

    Every open page asks after an event, most of them for the same: it is made once.
    """
    numbers = [int(part) for part in ids.split(",") if part.isascii() and part.isdecimal() and len(part) < 19]
    login = page.visit.login
    own = login.user_id if asked.query.wanted.mine and login else None
    wanted = tuple(numbers[:MOST_LIVE])
    key = (page.services.hub.news, wanted, asked.query.address(), own, asked.zone.key, page.visit.language)
    return HTMLResponse(shelf.changes.get(key, lambda: _changed_rows(page, asked, wanted)))


def _changed_rows(page: PageMaker, asked: Asked, numbers: Sequence[int]) -> bytes:
    with page.services.database.read() as session:
        viewpoint = _viewpoint(page, session)
        places = listing.among(session, numbers, asked.filter(viewpoint), asked.query.sorting, viewpoint)
        lines = _in_words(page, session, places, viewpoint)
    values = _row_values(page)
    return bytes(page.render("list/rows.html", lines=lines, more=False, query=asked.query, **values).body)


@room.get("/worklist/counts")
@allow(*READERS)
def counts(page: Page, asked: AskedList, shelf: NodeShelf) -> Response:
    """How many studies each tab has, in the order of the tabs."""
    with page.services.database.read() as session:
        viewpoint = _viewpoint(page, session)
        found = [
            _count_words(shelf.counts.get(*_counting(session, tab.query, asked.zone, viewpoint)))
            for tab in tabs(views.seen_by(session, viewpoint.user_id), page.say)
        ]
    return JSONResponse(found)


@room.get("/worklist/studies/{study_id}/details", dependencies=[audited("study shown in the list")])
@allow(*READERS)
def details(page: Page, study_id: int) -> Response:
    """What a row shows when it is opened."""
    with page.services.database.read() as session:
        viewpoint = _viewpoint(page, session)
        places = [Place(number, rank, ()) for number, rank in listing.ranks(session, [study_id], viewpoint).items()]
        lines = _in_words(page, session, places, viewpoint)
        if not lines:
            raise Problem(404, N_("There is no such study."))
        films = session.execute(
            select(Instance, Analysis.id)
            .outerjoin(Analysis, (Analysis.instance_id == Instance.id) & Analysis.map_path.is_not(None))
            .where(Instance.study_id == study_id)
            .order_by(Instance.id)
        ).all()
        captures = list(session.scalars(_captures(study_id))) if lines[0].study.decision else []
    seen: dict[int, Any] = {instance.id: (instance, analysis is not None) for instance, analysis in films}
    return page.render(
        "list/details.html",
        line=lines[0],
        films=list(seen.values()),
        captures=captures,
        **_row_values(page),
    )


@room.get("/worklist/studies/{study_id}/pictures/{kind}/{number}")
@allow(*READERS)
def picture(
    page: Page, shelf: NodeShelf, study_id: int, kind: Literal["thumbnail", "film", "capture"], number: int
) -> Response:
    """A small picture of a film, or of the Secondary Capture with its map; not for diagnosis."""
    with page.services.database.read() as session:
        path = _picture_path(session, _viewpoint(page, session), study_id, kind, number)
    if path is None:
        raise Problem(404, N_("There is no such picture."))
    edge = pictures.THUMBNAIL_EDGE if kind == "thumbnail" else pictures.PICTURE_EDGE
    read = shelf.pictures.capture if kind == "capture" else shelf.pictures.film
    try:
        content = read(page.services.config.data_folder / path, edge)
    except pictures.UNREADABLE as error:
        raise Problem(404, N_("The picture cannot be read any more.")) from error
    return Response(content, media_type="image/jpeg")


@room.get("/worklist/studies/{study_id}/viewer", dependencies=[audited("study opened in the PACS viewer")])
@allow(*READERS)
def viewer(page: Page, study_id: int) -> Response:
    """Go to the study in the site's viewer."""
    template = page.services.config.worklist.viewer_url
    if template is None:
        raise Problem(404, N_("No viewer is configured: see worklist.viewer_url."))
    with page.services.database.begin() as session:
        study = session.get(Study, study_id)
        if study is None:
            raise Problem(404, N_("There is no such study."))
        assert page.visit.login is not None
        reads = page.visit.role in RADIOLOGISTS
        now = page.services.database.now(session)
        readings.opened(session, study_id, page.visit.login.user_id, reads=reads, now=now)
        url = template.format(
            study_instance_uid=quote(study.study_instance_uid, safe=""),
            accession_number=quote(study.accession_number or "", safe=""),
        )
    return RedirectResponse(url, 303)


@room.get("/worklist.csv")
@allow(*READERS)
def export(page: Page, asked: AskedList) -> Response:
    """The filtered list as a file, at most `MOST_EXPORTED` rows."""
    with page.services.database.begin() as session:
        page.record(session, "worklist exported", filters=sorted(_named(asked.query)))
    heads = {"Content-Disposition": 'attachment; filename="worklist.csv"'}
    return StreamingResponse(_csv(page, asked), media_type="text/csv; charset=utf-8", headers=heads)


@room.post("/worklist/views")
@allow(*READERS)
def save_view(
    page: Page,
    name: Annotated[str, Form(max_length=64)],
    query: Annotated[str, Form(max_length=4096)] = "",
    shared: Annotated[str, Form(max_length=8)] = "",
) -> Response:
    """Keep the filters and the order under a name."""
    label = " ".join(name.split())
    if not label or not label.isprintable():
        raise Problem(422, N_("A view needs a name of letters that can be seen."))
    kept, _ = list_query.read(parse_qsl(query))
    assert page.visit.login is not None
    with page.services.database.begin() as session:
        now = page.services.database.now(session)
        views.save(session, page.visit.login.user_id, label, kept.address(), shared=bool(shared), now=now)
        page.record(session, "view saved", shared=bool(shared), filters=sorted(_named(kept)))
    return page.go(f"/worklist?{kept.address()}")


@room.post("/worklist/views/{view_id}/remove")
@allow(*READERS)
def remove_view(page: Page, view_id: int) -> Response:
    """Forget a view of one's own."""
    assert page.visit.login is not None
    with page.services.database.begin() as session:
        if not views.remove(session, page.visit.login.user_id, view_id):
            raise Problem(404, N_("There is no such view of yours."))
        page.record(session, "view removed", view_id=view_id)
    return page.go("/worklist")


@room.get("/wall", dependencies=[audited("wall shown")])
@allow(*READERS)
def wall(page: Page) -> Response:
    """What waits, in large type and without names, for a screen that many people see."""
    return _wall(page, "wall.html")


@room.get("/wall/rows")
@allow(*READERS)
def wall_rows(page: Page) -> Response:
    """The same again, for the wall that shows it already."""
    return _wall(page, "list/wall_rows.html")


def _wall(page: PageMaker, template: str) -> Response:
    with page.services.database.read() as session:
        viewpoint = _viewpoint(page, session)
        asked = Asked(UNREAD, (), templates.zone(page.visit.zone))
        lines, _ = _lines(page, session, asked, viewpoint, None, limit=WALL_ROWS)
        waiting = listing.count(session, asked.filter(viewpoint), viewpoint)
        urgent = listing.count(
            session, Filter(readers=UNREAD.wanted.readers, level=(Rank.LIMIT, Rank.STAT, Rank.HIGH)), viewpoint
        )
        oldest = listing.oldest_unread(session, viewpoint)
    return page.render(
        template,
        lines=lines,
        waiting=_count_words(waiting),
        urgent=_count_words(urgent),
        longest=list_lines.wait_words(viewpoint.now - oldest, page.say) if oldest else "–",
        shows=page.services.config.worklist.wall_shows,
        initials=list_lines.initials,
        now=viewpoint.now,
    )


def _stage(page: PageMaker, session: Session) -> Any:
    return policies.in_force(session, page.services.config.policy).standing.stage


def _viewpoint(page: PageMaker, session: Session) -> Viewpoint:
    assert page.visit.login is not None
    stage = _stage(page, session)
    now: datetime = page.services.database.now(session)
    return Viewpoint(
        now=now,
        unread_since=now - timedelta(days=page.services.config.worklist.unread_days),
        user_id=page.visit.login.user_id,
        shows=stage.shows,
        orders=stage == "active",
    )


def _lines(
    page: PageMaker,
    session: Session,
    asked: Asked,
    viewpoint: Viewpoint,
    after: tuple[Any, ...] | None,
    *,
    limit: int = PAGE_ROWS,
) -> tuple[list[Line], bool]:
    found = listing.section(session, asked.filter(viewpoint), asked.query.sorting, viewpoint, limit=limit, after=after)
    return _in_words(page, session, found.places, viewpoint), found.more


def _in_words(page: PageMaker, session: Session, places: Sequence[Place], viewpoint: Viewpoint) -> list[Line]:
    limit = timedelta(minutes=page.services.config.policy.maximum_wait_minutes)
    return [list_lines.line(row, viewpoint, limit, page.say) for row in listed.rows(session, places, viewpoint)]


def _row_values(page: PageMaker) -> dict[str, Any]:
    return {"has_viewer": page.services.config.worklist.viewer_url is not None}


def _counting(session: Session, query: ListQuery, zone: ZoneInfo, viewpoint: Viewpoint) -> tuple[Any, Any]:
    """Key and question of a count; readers with the same view share it."""
    own = viewpoint.user_id if query.wanted.mine else None
    key = (query.address(), zone.key if query.when or query.day_from or query.day_to else "", own, viewpoint.shows)
    return key, lambda: listing.count(session, query.filter(viewpoint.now, zone), viewpoint)


def _count_words(number: int) -> str:
    return str(number) if number <= listing.MOST_COUNTED else f"{listing.MOST_COUNTED}+"


def _named(query: ListQuery) -> set[str]:
    """Names of the filters that are set; their values may be of a patient."""
    return {name for name, _ in parse_qsl(query.address())}


def _sort_links(query: ListQuery) -> dict[str, tuple[str, str]]:
    """For each order: where its head leads, and how the list is sorted by it now."""
    links = {}
    for order in listing.Order:
        present = query.sorting.by is order
        descending = not query.sorting.descending if present else order is listing.Order.RECEIVED
        if order is listing.Order.TRIAGE:
            descending = False
        direction = ("descending" if query.sorting.descending else "ascending") if present else "none"
        links[order.value] = (query.address(sorting=listing.Sorting(order, descending)), direction)
    return links


def _captures(study_id: int) -> Any:
    return (
        select(Result.id)
        .join(Study, Study.id == Result.study_id)
        .where(
            Result.study_id == study_id,
            Result.kind == ResultKind.SECONDARY_CAPTURE,
            Result.revision == Study.revision,
        )
        .order_by(Result.position)
    )


def _picture_path(session: Session, viewpoint: Viewpoint, study_id: int, kind: str, number: int) -> str | None:
    if kind == "capture":
        shown = select(Study.id).where(Study.id == study_id, listing.answer_is_shown(viewpoint))
        if session.scalars(shown).first() is None:
            return None
        return session.scalars(
            select(Result.path).where(Result.id == number, Result.id.in_(_captures(study_id)))
        ).one_or_none()
    return session.scalars(
        select(Analysis.map_path)
        .join(Instance, Instance.id == Analysis.instance_id)
        .where(Instance.id == number, Instance.study_id == study_id, Analysis.map_path.is_not(None))
        .order_by(Analysis.id.desc())
        .limit(1)
    ).one_or_none()


def _csv(page: PageMaker, asked: Asked) -> Iterator[str]:
    return csv_text.lines(list_lines.csv_heads(page.say), _csv_rows(page, asked))


def _csv_rows(page: PageMaker, asked: Asked) -> Iterator[list[object]]:
    """A page at a time, so that neither memory nor a read transaction grows with the file."""
    after: tuple[Any, ...] | None = None
    viewpoint: Viewpoint | None = None
    for _ in range(MOST_EXPORTED // 500):
        with page.services.database.read() as session:
            viewpoint = viewpoint or _viewpoint(page, session)
            found = listing.section(
                session, asked.filter(viewpoint), asked.query.sorting, viewpoint, limit=500, after=after
            )
            lines = _in_words(page, session, found.places, viewpoint)
        for shown in lines:
            yield list_lines.csv_values(shown, viewpoint, asked.zone, page.say)
        if not found.more:
            return
        after = found.places[-1].key
