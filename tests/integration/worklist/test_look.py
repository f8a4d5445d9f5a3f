"""The frame of all pages: readable for everybody, by keyboard, in both languages and themes."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from db.accounts import Role
from tests.accessibility import assert_accessible
from tests.integration.worklist.conftest import Site, enter


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_stands_in_the_way_of_anybody(site: Site, chromium: Browser, theme: str, language: str) -> None:
    context = chromium.new_context(base_url=site.url, color_scheme=theme, viewport={"width": 1280, "height": 800})  # type: ignore[arg-type]
    page = context.new_page()
    page.goto("/login")
    assert_accessible(page)
    enter(page, Role.ADMIN)
    if language == "zh":
        page.get_by_role("button", name="中文").click()
    for path in ("/worklist", "/settings", "/admin/users", "/nowhere"):
        page.goto(path)
        assert_accessible(page)
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, path
    page.goto("/worklist")
    page.get_by_role("button", name=re.compile(r"Keys|快捷键")).click()
    assert_accessible(page)
    page.keyboard.press("Escape")
    if language == "zh":
        page.get_by_role("button", name="English").click()
    context.close()


def test_page_fits_at_twice_the_size(site: Site, chromium: Browser) -> None:
    # 200 % zoom of a 1280 pixels wide window leaves 640 of the page's own pixels.
    context = chromium.new_context(base_url=site.url, viewport={"width": 640, "height": 400}, device_scale_factor=2)
    page = context.new_page()
    enter(page, Role.ADMIN)
    for path in ("/worklist", "/settings", "/admin/users"):
        page.goto(path)
        assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"), path
    context.close()


def test_door_and_frame_work_by_keyboard_alone(browser_page: Page) -> None:
    browser_page.goto("/login")
    keyboard = browser_page.keyboard
    keyboard.type("radiologist")
    keyboard.press("Tab")
    keyboard.type("correct horse battery")
    keyboard.press("Enter")
    browser_page.wait_for_url("**/worklist")
    keyboard.press("?")
    expect(browser_page.get_by_role("dialog", name="Keys")).to_be_visible()
    keyboard.press("Escape")
    expect(browser_page.get_by_role("dialog", name="Keys")).to_be_hidden()
    browser_page.reload()
    keyboard.press("Tab")
    expect(browser_page.get_by_role("link", name="Skip to the content")).to_be_focused()
    keyboard.press("Enter")
    expect(browser_page.locator("main")).to_be_focused()


def test_language_keeps_the_address_with_its_filters(browser_page: Page) -> None:
    enter(browser_page, Role.READER)
    browser_page.goto("/worklist?state=open&sort=wait")
    browser_page.get_by_role("button", name="中文").click()
    expect(browser_page.get_by_role("heading", name="工作列表")).to_be_visible()
    assert browser_page.url.endswith("/worklist?state=open&sort=wait")
    browser_page.get_by_role("button", name="English").click()
    expect(browser_page.get_by_role("heading", name="Worklist")).to_be_visible()


def test_theme_follows_the_browser_until_the_user_chooses(site: Site, browser_page: Page) -> None:
    enter(browser_page, Role.READER)
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    dark = browser_page.evaluate(colour)
    browser_page.emulate_media(color_scheme="light")
    light = browser_page.evaluate(colour)
    assert light != dark
    browser_page.get_by_role("button", name="Dark").click()
    assert browser_page.evaluate(colour) == dark


def test_times_are_the_viewers(browser_page: Page) -> None:
    enter(browser_page, Role.ADMIN)
    browser_page.goto("/admin/users")
    shown = browser_page.locator("time").first
    expect(shown).to_have_attribute("title", "Asia/Shanghai")
    stored = shown.get_attribute("datetime") or ""
    assert stored.endswith("+00:00")
    hours = (int(shown.inner_text()[11:13]) - int(stored[11:13])) % 24
    assert hours == 8


def test_page_asks_no_other_host_and_complains_of_nothing(site: Site, browser_page: Page) -> None:
    requests: list[str] = []
    complaints: list[str] = []
    browser_page.on("request", lambda request: requests.append(request.url))
    browser_page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    browser_page.on("pageerror", lambda error: complaints.append(str(error)))
    enter(browser_page, Role.ADMIN)
    for path in ("/worklist", "/settings", "/admin/users"):
        browser_page.goto(path)
    assert [url for url in requests if not url.startswith(site.url)] == []
    assert complaints == []
