"""What an endpoint works with: `Page` renders, translates and records in the name of the visitor."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup
from sqlalchemy.orm import Session

from clearfilm.counts import Counted
from db import audit
from db.accounts import Role
from worklist import templates
from worklist.access import ADMINS, AUDITORS, READERS, CurrentVisit, Visit
from worklist.reasons import reason_words
from worklist.services import NodeServices, Services
from worklist.templates import N_

# Of the bar at the top: path, words, who sees it.
ROOMS = (
    ("/worklist", N_("Worklist"), READERS),
    ("/admin", N_("Node"), ADMINS),
    ("/admin/audit", N_("Audit trail"), AUDITORS - ADMINS),
)
ROLES = {
    Role.READER: N_("Reader"),
    Role.RADIOLOGIST: N_("Radiologist"),
    Role.ADMIN: N_("Administrator"),
    Role.AUDITOR: N_("Auditor"),
}
_TOKEN_FIELD = Markup('<input type="hidden" name="form_token" value="{}">')


@dataclass(frozen=True)
class PageMaker:
    """One request that was let through."""

    request: Request
    visit: Visit
    services: Services

    def render(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page or a part of one. Templates get `visit`, `path`, `time`, and the values."""
        where = templates.zone(self.visit.zone)
        context = {
            "visit": self.visit,
            "path": local_path(self.request),
            "zone": where.key,
            "rooms": [(path, self.say(label)) for path, label, roles in ROOMS if self.visit.role in roles],
            "role_name": lambda role: self.say(ROLES[role]),
            "reason": lambda text: reason_words(self.say, text),
            "form_token": lambda: _TOKEN_FIELD.format(self.visit.form_token),
            "time": lambda moment: _time_element(moment, where),
            **values,
        }
        return HTMLResponse(self.services.templates.render(template, self.visit.language, context), status)

    def say(self, message: str | Counted, **values: object) -> str:
        """A sentence in the viewer's language."""
        return self.services.templates.translate(self.visit.language, message, **values)

    @property
    def is_secure(self) -> bool:
        """Whether the browser's connection is encrypted: cookies are then sent over such ones only."""
        return self.request.url.scheme == "https"

    def go(self, path: str) -> RedirectResponse:
        """After a change: to a page of ours, which the browser then gets."""
        return RedirectResponse(path, 303)

    def record(self, session: Session, event: str, *, study_id: int | None = None, **detail: Any) -> None:
        """One audit record of a change, in the transaction of the change. No patient data in `detail`."""
        now = self.services.database.now(session)
        audit.record(
            session,
            event,
            actor=self.visit.actor,
            now=now,
            study_id=study_id,
            address=self.visit.address,
            **detail,
        )


def _make(request: Request, visit: CurrentVisit, services: NodeServices) -> PageMaker:
    return PageMaker(request, visit, services)


Page = Annotated[PageMaker, Depends(_make)]


def audited(event: str) -> Any:
    """Dependency of a route that shows or exports: one audit record for each answer that was made.

    The record is written after the endpoint has returned and before its answer leaves: no record, no answer.
    The number of the study comes from the route's parameter `study_id`, if it has one. Endpoints raise
    `Problem` for what they cannot show; then there is no view, and no record of one.
    """

    def record(page: Page) -> Generator[None]:
        yield
        study_id = page.request.path_params.get("study_id")
        with page.services.database.begin() as session:
            page.record(session, event, study_id=int(study_id) if study_id is not None else None)

    return Depends(record, scope="function")


def local_path(request: Request) -> str:
    """Path and query of the page that the person sees, for links that come back to it."""
    seen = request.headers.get("hx-current-url")
    url = request.url if seen is None else type(request.url)(seen)
    return url.path + (f"?{url.query}" if url.query else "")


def safe_path(path: str | None) -> str:
    """A path on this site; anything that could lead elsewhere becomes the front page."""
    if not path or not path.startswith("/") or path.startswith(("//", "/\\")):
        return "/"
    return path if path.isprintable() and "\\" not in path else "/"


def _time_element(moment: Any, where: Any) -> Markup:
    if moment is None:
        return Markup("")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), where.key, templates.local_time(moment, where)
    )
