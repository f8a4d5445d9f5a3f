"""Users: who may log in, as what; each user's own settings."""

from fastapi import APIRouter
from fastapi.responses import Response

from db import accounts
from worklist.access import ADMINS, allow
from worklist.page import Page, audited

room = APIRouter()


@room.get("/admin/users", dependencies=[audited("users shown")])
@allow(*ADMINS)
def show_users(page: Page) -> Response:
    """Everybody who may log in."""
    with page.services.database.read() as session:
        rows = accounts.users(session)
    return page.render("admin/users.html", users=rows)
