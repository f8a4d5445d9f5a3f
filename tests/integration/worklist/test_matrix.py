"""Every route, every role, and nobody: who is let through, and that each denial is one audit record."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select

from db.accounts import Role
from db.models import Audit
from tests.integration.worklist.conftest import PATIENT, Site
from worklist import access
from worklist.app import ROOMS

# Whatever is not in this list needs a login.
OPEN = {
    "GET /livez",
    "GET /readyz",
    "GET /healthz",
    "GET /metrics",
    "GET /login",
    "POST /login",
    "GET /login/oidc",
    "GET /login/oidc/callback",
    "GET /first",
    "POST /first",
    "POST /settings/language",
}


def routes() -> Iterator[tuple[str, str, frozenset[Role] | None]]:
    """Method, path with a number in the place of each parameter, and the roles."""
    for room in ROOMS:
        for route in room.routes:
            path = "/".join("1" if part.startswith("{") else part for part in route.path.split("/"))  # type: ignore[attr-defined]
            for method in sorted(route.methods - {"HEAD"}):  # type: ignore[attr-defined]
                yield method, path, access.declared(route.endpoint)  # type: ignore[attr-defined]


ROUTES = [pytest.param(*route, id=f"{route[0]} {route[1]}") for route in routes()]


def ask(client: httpx2.Client, method: str, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, beginning of the body, and where to; streams are not waited for. Changes come without their token."""
    kept = {name: value for name, value in client.headers.items() if name != "x-form-token"}
    with client.stream(method, path, headers=kept | headers) as answer:
        first = next(answer.iter_text(), "")
        return answer.status_code, first, answer.headers.get("location", "")


@pytest.fixture
def clients(
    as_reader: httpx2.Client, as_radiologist: httpx2.Client, as_admin: httpx2.Client, as_auditor: httpx2.Client
) -> dict[Role, Any]:
    """One for each role. The header with the form token is taken away: nothing of this test changes anything."""
    found = {Role.READER: as_reader, Role.RADIOLOGIST: as_radiologist, Role.ADMIN: as_admin, Role.AUDITOR: as_auditor}
    for client in found.values():
        client.headers.pop("x-form-token", None)
    return found


def denials(site: Site) -> int:
    with site.database.read() as session:
        return session.scalar(select(func.count()).select_from(Audit).where(Audit.event == "page denied")) or 0


def test_open_routes_are_these() -> None:
    assert {f"{method} {path}" for method, path, roles in routes() if roles is None} == OPEN


@pytest.mark.parametrize(("method", "path", "roles"), ROUTES)
def test_roles(site: Site, clients: dict[Role, Any], method: str, path: str, roles: frozenset[Role] | None) -> None:
    for role, client in clients.items():
        before = denials(site)
        status, body, _ = ask(client, method, path)
        if roles is not None and role not in roles:
            assert (status, "Your role does not include this page" in body) == (403, True), role
        elif method == "GET":
            assert status not in (401, 403) or path == "/first", role
        else:
            assert (status, "Load it again" in body) == (403, True), role
        # A wrong link to /first is answered with 403 by the page itself.
        is_denied = status == 403 and (method, path) != ("GET", "/first")
        assert denials(site) - before == is_denied, role


@pytest.mark.parametrize(("method", "path", "roles"), ROUTES)
def test_nobody(site: Site, method: str, path: str, roles: frozenset[Role] | None) -> None:
    site.server.services.denials._minutes.clear()
    client = site.client()
    before = denials(site)
    status, body, location = ask(client, method, path)
    assert PATIENT not in body
    if roles is None:
        # No provider of logins is configured.
        assert status == 404 if path.startswith("/login/oidc") else status in (200, 403, 503)
        return
    assert denials(site) == before + 1
    if method == "GET":
        assert (status, location[:12]) == (303, "/login?next=")
    assert ask(client, method, path, accept="image/png")[0] == 401
    status, _, _ = ask(client, method, path, **{"hx-request": "true", "hx-current-url": f"{site.url}/worklist"})
    assert status == 401


def test_address_that_does_not_exist_tells_nobody_so(site: Site) -> None:
    assert site.client().get("/nowhere").headers["location"] == "/login?next=%2Fnowhere"


def test_static_files_are_open_and_kept_by_browsers(site: Site) -> None:
    answer = site.client().get("/static/app.css")
    assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)
    assert site.client().get("/static/../app.py").status_code in (303, 404)


@pytest.mark.parametrize("path", ["/login", "/worklist", "/static/app.js", "/nowhere", "/livez"])
def test_every_answer_has_the_strict_headers(as_reader: httpx2.Client, path: str) -> None:
    headers = as_reader.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert path.startswith("/static/") or headers["cache-control"] == "no-store"
