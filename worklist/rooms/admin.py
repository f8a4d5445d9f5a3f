"""The admin console."""

from fastapi import APIRouter
from fastapi.responses import Response

from worklist.access import ADMINS, AUDITORS, allow
from worklist.page import Page, audited

room = APIRouter(prefix="/admin")


@room.get("", dependencies=[audited("node shown")])
@allow(*ADMINS)
def node(page: Page) -> Response:
    """What the node is doing."""
    return page.render("admin/node.html")


@room.get("/audit", dependencies=[audited("audit trail shown")])
@allow(*AUDITORS)
def trail(page: Page) -> Response:
    """The audit trail."""
    return page.render("admin/audit.html")
