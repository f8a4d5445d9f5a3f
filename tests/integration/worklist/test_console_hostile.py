"""Hostile texts in every column that holds text of others, on every page that shows it: nothing of them comes alive."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import delete, select

from clearfilm.config import Config, Destination
from db import schema, switches
from db.accounts import Role
from db.models import ModelBundle, Study
from db.session import Database
from db.switches import Stage, Switch
from tests import hostile
from tests.integration.worklist.conftest import Site, enter, seed_users, serving
from tests.integration.worklist.everything import DESTINATIONS, Filler, chosen_columns
from tests.integration.worklist.test_console import RENEW
from worklist.app import ROOMS

GROUPS = hostile.groups()
TEXTS = (*(text for text in hostile.STRINGS if text not in GROUPS), *GROUPS)
# What each page is opened with; `{study}` and `{model}` stand for those that hold several texts each.
PAGES = {
    "/worklist": ["/worklist?sort=received&order=desc"],
    "/wall": ["/wall"],
    "/studies/{study_id}": ["/studies/{study}"],
    "/admin": ["/admin"],
    "/admin/alerts": ["/admin/alerts"],
    "/admin/audit": ["/admin/audit", "/admin/audit?before=90"],
    "/admin/callers": [
        "/admin/callers",
        *(f"/admin/callers?outcome={each}" for each in ("accepted", "denied", "deferred")),
    ],
    "/admin/configuration": ["/admin/configuration"],
    "/admin/destinations": ["/admin/destinations"],
    "/admin/models": ["/admin/models"],
    "/admin/models/{number}": ["/admin/models/{model}"],
    "/admin/policy": ["/admin/policy"],
    "/admin/queues": [
        f"/admin/queues?tab={tab}&page={page}"
        for tab, pages in (("waiting", 4), ("running", 2), ("sending", 2), ("failed", 1), ("done", 2))
        for page in range(1, pages + 1)
    ],
    "/admin/users": ["/admin/users"],
}
# What else is asked for by GET, and why no browser looks at it here.
OTHERS = {
    **dict.fromkeys(
        (
            "/admin/alerts/part", "/admin/callers/part", "/admin/overview", "/admin/queues/part",
            "/studies/{study_id}/panel", "/wall/rows", "/worklist/changes", "/worklist/rows",
            "/worklist/studies/{study_id}/details",
        ),
        "a part of a page, loaded by it",
    ),
    **dict.fromkeys(("/worklist.csv", "/admin/audit/export"), "a file, read below"),
    **dict.fromkeys(("/livez", "/readyz", "/healthz", "/metrics", "/events", "/worklist/counts"), "for programs"),
    **dict.fromkeys(
        (
            "/studies/{study_id}/films/{film_id}", "/studies/{study_id}/films/{film_id}/map",
            "/worklist/studies/{study_id}/pictures/{kind}/{number}",
        ),
        "pictures",
    ),
    **dict.fromkeys(
        ("/", "/worklist/studies/{study_id}/viewer", "/login/oidc", "/login/oidc/callback"), "leads elsewhere"
    ),
    **dict.fromkeys(("/login", "/first", "/settings", "/admin/audit/verify"), "shows no text of others"),
    "/admin/callers/trust": "shows titles and addresses that were checked",
    "/admin/models/{number}/report": "in a sandbox, see the tests of models",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site in whose database nothing can be trusted, nor the name of its file of configuration."""
    folder = tmp_path_factory.mktemp("hostile")
    destinations = tuple(
        Destination(name=f"pacs-{number}", ae_title="PACS", host="127.0.0.1", port=1) for number in range(DESTINATIONS)
    )
    path = folder / '"><img src=canary onerror=window.hit=1>\u202e.yaml'
    path.write_text("<script>window.hit=1</script>: {", encoding="utf-8")
    config = Config(data_folder=folder / "data", destinations=destinations, results={"manufacturer": GROUPS[-5][:64]})
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        seed_users(database)
        with database.begin() as session:
            filler = Filler(session, TEXTS, folder, database.now(session))
            filler.fill()
        assert filler.filled == chosen_columns()
        with serving(config, database) as server:
            server._app.state.services = dataclasses.replace(server.services, config_path=path)
            site = Site(server, config, database)
            yield site
            site.close()


def test_pages_are_all_known() -> None:
    routes = {
        route.path  # type: ignore[attr-defined]
        for room in ROOMS
        for route in room.routes
        if "GET" in route.methods  # type: ignore[attr-defined]
    }
    assert routes == set(PAGES) | set(OTHERS)


def numbers(site: Site, table: type[Study] | type[ModelBundle]) -> list[int]:
    """Rows that hold several texts each: the last ones of those that a page shows."""
    with site.database.read() as session:
        found = select(table.id).order_by(table.id)
        if table is Study:
            found = found.where(
                Study.first_received_at == select(Study.first_received_at).order_by(Study.id).limit(1).scalar_subquery()
            )
        return list(session.scalars(found))[-len(GROUPS) :]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", [Role.RADIOLOGIST, Role.ADMIN])
def test_nothing_comes_alive(site: Site, chromium: Browser, role: Role) -> None:
    page = chromium.new_context(base_url=site.url, viewport={"width": 1280, "height": 800}).new_page()
    with hostile.inert(page):
        enter(page, role)
        for path, addresses in PAGES.items():
            if path.startswith("/admin") is (role is Role.ADMIN):
                for address in (each for pattern in addresses for each in of_rows(site, pattern)):
                    look_at(page, address)
    page.context.close()


def of_rows(site: Site, pattern: str) -> list[str]:
    """The address for each row that it may name."""
    if "{study}" in pattern:
        return [pattern.format(study=number) for number in numbers(site, Study)]
    if "{model}" in pattern:
        return [pattern.format(model=number) for number in numbers(site, ModelBundle)]
    return [pattern]


def look_at(page: Page, address: str) -> None:
    """Open a page with all that it can unfold, and once more what renews itself."""
    answer = page.goto(address)
    assert answer
    assert answer.status == 200, address
    page.evaluate("() => { for (const details of document.querySelectorAll('details')) details.open = true; }")
    hostile.assert_harmless(page)
    if page.locator("[hx-trigger^=node]").count():
        page.evaluate("() => { for (const details of document.querySelectorAll('details')) details.open = false; }")
        page.evaluate(RENEW)
        hostile.assert_harmless(page)


def test_rows_that_the_list_loads_later_are_as_harmless(site: Site, browser_page: Page) -> None:
    page = browser_page
    rows = page.locator("tr[data-id]")
    with hostile.inert(page):
        enter(page, Role.RADIOLOGIST)
        page.goto("/worklist?sort=received&order=desc")
        while (shown := rows.count()) < 2 * len(TEXTS):
            page.locator("button[data-more]").click()
            expect(rows).not_to_have_count(shown)
        for number in numbers(site, Study):
            page.locator(f'tr[data-id="{number}"]').press("Space")
        expect(page.locator(".details")).to_have_count(len(GROUPS))
        hostile.assert_harmless(page)


def test_reasons_of_pauses_are_as_harmless(site: Site, browser_page: Page) -> None:
    """Three at a time: there are no more switches."""
    page = browser_page
    with hostile.inert(page):
        enter(page, Role.ADMIN)
        for start in range(0, len(GROUPS), len(Stage)):
            with site.database.begin() as session:
                session.execute(delete(Switch))
                for stage, text in zip(Stage, GROUPS[start:], strict=False):
                    switches.pause(session, stage, reason=text, actor=text, now=site.database.now(session))
            for address in ("/admin", "/admin/queues"):
                look_at(page, address)


def test_configuration_that_is_tried_is_as_harmless(site: Site, browser_page: Page) -> None:
    page = browser_page
    faulty = "\n".join(f"{json.dumps(text)}: {json.dumps(text)}" for text in hostile.STRINGS[:-1])
    senders = [{"name": text, "ae_title": "A", "addresses": ["127.0.0.1"]} for text in GROUPS if len(text) <= 64]
    with hostile.inert(page):
        enter(page, Role.ADMIN)
        page.goto("/admin/configuration")
        for text in (faulty, "senders: " + json.dumps(senders), GROUPS[0], "\n".join(GROUPS)):
            page.locator("details.block > summary").click()
            page.locator("textarea").fill(text.replace("\0", ""))
            page.get_by_role("button", name="Test it").click()
            expect(page.locator("section.card")).to_be_visible()
            hostile.assert_harmless(page)
            page.goto("/admin/configuration")


@pytest.mark.parametrize(
    ("role", "path"), [(Role.READER, "/worklist.csv?sort=received"), (Role.AUDITOR, "/admin/audit/export")]
)
def test_files_hold_no_formula(site: Site, role: Role, path: str) -> None:
    answer = site.client(role).get(path)
    cells = [cell for row in csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"), newline="")) for cell in row]
    assert any("HYPERLINK" in cell for cell in cells)
    formulas = [cell[:60] for cell in cells if cell.strip(" \u3000\ufeff").startswith(("=", "+", "-", "@", "\uff1d"))]
    assert formulas == []
