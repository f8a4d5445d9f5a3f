"""The radiologist's list."""

from fastapi import APIRouter
from fastapi.responses import Response

from worklist.access import READERS, Visit, allow
from worklist.page import Page, audited

room = APIRouter()


@room.get("/worklist", dependencies=[audited("worklist shown")])
@allow(*READERS)
def worklist(page: Page) -> Response:
    """The list."""
    return page.render("worklist.html")


def front_page(visit: Visit) -> str:
    """Where a user of this role begins."""
    return "/worklist" if visit.role in READERS else "/admin/audit"
