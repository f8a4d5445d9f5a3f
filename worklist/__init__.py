"""The web pages: the radiologist's list, the case, the admin console.

How to add a room
-----------------
A room is a module in `worklist/rooms/` with a router called `room`, templates below `worklist/html/`, and its name in
`ROOMS` of `worklist/app.py`. A link in the bar at the top: `ROOMS` of `worklist/page.py`. An endpoint looks like this::

    room = APIRouter()

    @room.get("/studies/{study_id}", dependencies=[audited("case shown")])
    @allow(*READERS)
    def case(page: Page, study_id: int) -> Response:
        with page.services.database.read() as session:
            study = session.get(Study, study_id)
        if study is None:
            raise Problem(404, N_("There is no such study."))
        return page.render("case.html", study=study)

    @room.post("/studies/{study_id}/verdict")
    @allow(*RADIOLOGISTS)
    def verdict(page: Page, study_id: int, agrees: Annotated[bool, Form()]) -> Response:
        with page.services.database.begin() as session:
            ...
            page.record(session, "verdict given", study_id=study_id, agrees=agrees)
        return page.go(f"/studies/{study_id}")

Who may
    `allow` (`worklist/access.py`) goes directly above the function, below the route. The application refuses to
    start while a route has none. Endpoints are plain functions (they run in threads); `async def` only for what
    never touches the database.
Audit
    Pages with patient data, and exports: `audited(event)` writes one record for each answer that was made. Changes:
    `page.record` in the transaction of the change. Denials and logins are recorded already. Details hold row
    numbers, names of settings, counts: never what identifies a patient, and nothing that somebody typed into a
    field. Events are recorded in English; `worklist/rooms/audit_words.py` lists them all, so that pages tell them in
    the viewer's language. So do purposes of keys, which are the docstrings of the configuration's fields.
Changes
    Always POST. Every form has `{{ form_token() }}`; requests of htmx get the token by themselves. After a change
    answer with `page.go(path)`, or with the changed part for htmx. Make changes safe to repeat: people click twice,
    and two of them at once.
Problems
    `raise Problem(status, N_("..."), name=value)` (`worklist/answers.py`): a page, a notice in the corner (htmx),
    or JSON. A database that is away, wrong parameters, ended logins and denials are answered there already.
Templates
    `{% extends 'base.html' %}` with the blocks `title` (never a name of a patient), `main`, `bar`, `keys`. There
    are `visit`, `path`, `zone`, `role_name(role)`, `time(moment)` (in the viewer's zone), `static(name)`, and the
    filter `shown` for everything that was received: `{{ study.patient_name | shown }}` makes direction marks and
    control characters visible. Never `| safe`, no inline style or script: the Content-Security-Policy forbids both.
    Scripts and styles of a room: own files in `worklist/static/`, loaded in the block `head`. Colours only by the
    tokens of `app.css`; a chip is `<span class="chip finding">words</span>`.
Languages
    English stands in the code: `{{ _('...') }}` or `{% trans %}` in templates, `page.say(N_("... {name}"), name=...)`
    in Python. Chinese stands in `worklist/locale/zh/`, one .po file for each room; what another file has need not be
    repeated. A test tells which sentences are missing.
Events
    A page that lives has `{% block live %}{% include 'parts/live.html' %}{% endblock %}`. Events bubble from there:
    `studies` (`event.detail.data` is a JSON list of row numbers of `studies`), `refresh` (load all rows anew), `node`
    (anything else changed, at most every two seconds). For parts: `hx-get="/admin/queues" hx-trigger="node from:body"`.
    What changes a study must leave a finished job, a received film or report, or an audit record with its `study_id`:
    that is what the watcher looks at (`worklist/events.py`).
Tests
    `tests/integration/worklist/conftest.py`: `site` (a running server on a free port with a database), `as_reader`,
    `as_radiologist`, `as_admin`, `as_auditor` (logged-in clients), `browser_page` (Chromium).
"""
