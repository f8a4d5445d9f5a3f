"""When something is wrong: in words, without anything of the inside, and over by itself when its cause is over."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import func, select, text

from db.accounts import Role
from db.models import Audit
from tests import hostile
from tests.integration.worklist.conftest import Site, enter


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """Somebody else writes, and does not come to an end."""
    with site.database.begin() as session:
        session.execute(text("SELECT 1"))
        yield


def shown_pages(site: Site) -> int:
    with site.database.read() as session:
        return session.scalar(select(func.count()).select_from(Audit).where(Audit.event == "worklist shown")) or 0


def test_view_that_cannot_be_recorded_is_not_given(site: Site, as_reader: httpx2.Client) -> None:
    before = shown_pages(site)
    with locked(site):
        answer = as_reader.get("/worklist")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "The database does not answer" in answer.text
        assert 'http-equiv="refresh"' in answer.text
        assert "<h1>Worklist</h1>" not in answer.text
    assert as_reader.get("/worklist").status_code == 200
    assert shown_pages(site) == before + 1


def test_locked_database_is_told_to_a_page_that_stays_as_it_is(site: Site, as_reader: httpx2.Client) -> None:
    with locked(site):
        answer = as_reader.get("/worklist", headers={"hx-request": "true"})
    assert answer.status_code == 503
    assert answer.text.strip().startswith('<p class="notice" role="alert">')


def test_page_in_a_browser_recovers_when_the_database_is_back(site: Site, browser_page: Page) -> None:
    enter(browser_page, Role.READER)
    with locked(site):
        browser_page.goto("/worklist")
        expect(browser_page.get_by_role("alert")).to_contain_text("The database does not answer")
    expect(browser_page.get_by_role("heading", name="Worklist")).to_be_visible(timeout=15_000)


def test_missing_tables_are_no_traceback(site: Site, as_admin: httpx2.Client) -> None:
    with site.database.begin() as session:
        session.execute(text("ALTER TABLE users RENAME TO elsewhere"))
    try:
        answer = as_admin.get("/admin/users")
    finally:
        with site.database.begin() as session:
            session.execute(text("ALTER TABLE elsewhere RENAME TO users"))
    assert answer.status_code == 503
    assert "elsewhere" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        ("GET", "/login?ended=perhaps", {}),
        ("POST", "/settings/theme", {"theme": "x" * 100}),
        ("POST", "/settings/theme", {}),
        ("POST", "/settings/theme", {"theme": "pink"}),
        ("POST", "/settings/language", {"language": "tlh"}),
        ("POST", "/settings/zone", {"zone": "../../etc/passwd"}),
    ],
)
def test_values_that_make_no_sense_are_answered_in_words(
    site: Site, method: str, path: str, data: dict[str, str]
) -> None:
    client = site.client(Role.READER)
    answer = client.request(method, path, data=data)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    for value in data.values():
        assert value not in answer.text


def test_requests_that_are_too_large_are_not_read(site: Site) -> None:
    client = site.client()
    assert client.post("/login", content=b"x" * 1_000_001).status_code == 413
    chunks = (b"x" * 100_000 for _ in range(20))
    assert client.post("/login", content=chunks).status_code == 413


def test_wrong_addresses_and_methods_are_told_in_the_viewers_language(site: Site) -> None:
    client = site.client(Role.AUDITOR)
    client.post("/settings/language", data={"language": "zh"})
    assert (client.get("/nowhere").status_code, "没有这个页面" in client.get("/nowhere").text) == (404, True)
    assert client.delete("/login").status_code == 405


def test_programs_get_problems_as_json(site: Site) -> None:
    answer = site.client(Role.READER).get("/nowhere", headers={"accept": "application/json"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {"title": "There is no such page.", "status": 404}


@pytest.mark.parametrize("word", hostile.STRINGS[:-1])
def test_what_is_typed_into_the_door_stays_text(site: Site, word: str) -> None:
    client = site.client()
    answer = client.get("/login", params={"next": word})
    assert answer.status_code == 200
    body = answer.text.partition("<main")[2]
    assert "<script" not in body
    assert "canary" not in body
    assert "onerror" not in body


def test_hostile_addresses_do_nothing_in_a_browser(site: Site, browser_page: Page) -> None:
    started = time.monotonic()
    with hostile.inert(browser_page):
        for word in hostile.STRINGS[:12]:
            browser_page.goto("/login?" + httpx2.QueryParams({"next": word}).__str__())
    assert time.monotonic() - started < 60
