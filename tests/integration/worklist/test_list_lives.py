"""An open list while the node goes on: what comes and goes, what breaks and is mended, on paper, in small windows."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import text

from clearfilm.config import Config
from clearfilm.triage import Decision
from db import audit, reports, schema
from db.accounts import Role
from db.models import ReportSource, ReportStatus, StudyState
from db.reports import ReceivedReport
from db.session import Database
from tests.accessibility import assert_accessible
from tests.integration.worklist.conftest import Site, enter, seed_study, seed_users, serving
from worklist import main


@pytest.fixture(scope="module", autouse=True)
def studies(site: Site) -> None:
    for number in range(1, 9):
        seed(site, number, waited=number)


def seed(site: Site, number: int, *, waited: int, **changes: object) -> int:
    """A concluded study that was received so many minutes ago."""
    received = datetime.now(UTC) - timedelta(minutes=waited)
    return seed_study(
        site.database,
        study_instance_uid=f"1.9.{number}",
        patient_name=f"Zhang^{number}=张^{number}",
        patient_id=f"L{number:04d}",
        first_received_at=received,
        last_received_at=received,
        concluded_at=received + timedelta(seconds=20),
        state=StudyState.CONCLUDED,
        decision=Decision.SIGNIFICANT_FINDING,
        revision=1,
        **changes,
    )


def tell(site: Site, study_id: int) -> None:
    """What every change of a study leaves."""
    with site.database.begin() as session:
        audit.record(session, "test", actor="test", now=site.database.now(session), study_id=study_id)


def row(page: Page, number: int) -> Locator:
    return page.locator("tr[data-id]", has_text=f"L{number:04d}")


@pytest.fixture
def reading(browser_page: Page) -> Page:
    enter(browser_page, Role.RADIOLOGIST)
    browser_page.goto("/worklist")
    browser_page.locator(".live:not(.lost)").wait_for()
    return browser_page


def order(page: Page) -> list[str]:
    return page.locator("tr[data-id] .c-id .copy").all_inner_texts()


def test_a_study_that_is_late_comes_to_its_place_and_moves_nobody(reading: Page, site: Site) -> None:
    for _ in range(3):
        reading.keyboard.press("j")
    held = reading.locator("tr[data-id]:focus")
    before, name = held.bounding_box(), held.locator(".copy").inner_text()
    # Received before all others, concluded after them.
    tell(site, seed(site, 50, waited=45))
    expect(row(reading, 50)).to_have_count(1)
    expect(held.locator(".copy")).to_have_text(name)
    assert before
    assert held.bounding_box() == pytest.approx(before, abs=1)
    assert order(reading)[0] == "L0050"


def test_a_report_alone_changes_the_row(reading: Page, site: Site) -> None:
    seed(site, 60, waited=20)
    reading.reload()
    reading.locator(".live:not(.lost)").wait_for()
    expect(row(reading, 60)).to_have_attribute("data-unread", "")
    report = ReceivedReport(
        source=ReportSource.HL7,
        status=ReportStatus.FINAL,
        accession_number=None,
        study_instance_uid="1.9.60",
        patient_id="L0060",
        findings="No acute findings.",
        impression="Normal chest.",
        reported_at=datetime.now(UTC),
    )
    with site.database.begin() as session:
        assert reports.record(session, report, now=site.database.now(session))
    # It is read, so it leaves the unread ones: dimmed until the next look, not from under the reader's hand.
    expect(row(reading, 60)).not_to_have_attribute("data-unread", "")


def test_rows_that_could_not_be_asked_for_come_when_the_database_is_back(reading: Page, site: Site) -> None:
    study_id = seed(site, 70, waited=3)
    with site.database.begin() as session:
        session.execute(text("ALTER TABLE analyses RENAME TO elsewhere"))
    try:
        tell(site, study_id)
        expect(reading.locator("#notices")).to_contain_text("The database does not answer")
        expect(row(reading, 70)).to_have_count(0)
    finally:
        with site.database.begin() as session:
            session.execute(text("ALTER TABLE elsewhere RENAME TO analyses"))
    expect(row(reading, 70)).to_have_count(1, timeout=15_000)


def test_what_happened_while_the_server_was_gone_is_there_when_it_is_back(tmp_path: Path, chromium: Browser) -> None:
    config = Config(data_folder=tmp_path)
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        seed_users(database)
        with serving(config, database) as server:
            context = chromium.new_context(base_url=server.url)
            page = context.new_page()
            enter(page, Role.RADIOLOGIST)
            page.locator(".live:not(.lost)").wait_for()
        expect(page.get_by_text("Connection lost, trying again")).to_be_visible(timeout=15_000)
        seed_study(database, patient_id="MISSED")
        with serving(config, database, main._bind("127.0.0.1", int(server.url.rpartition(":")[2]))):
            expect(page.locator("tr[data-id]", has_text="MISSED")).to_have_count(1, timeout=20_000)
            expect(page.get_by_text("Connection lost, trying again")).to_be_hidden()
            context.close()


def test_two_clicks_on_keep_save_one_view(reading: Page, site: Site) -> None:
    reading.get_by_role("button", name="Save view").click()
    dialog = reading.get_by_role("dialog", name="Save view")
    dialog.get_by_label("Name").fill("Twice")
    dialog.get_by_role("button", name="Keep").dblclick()
    expect(reading.locator(".tabs a", has_text="Twice")).to_have_count(1)
    expect(reading.get_by_role("alert")).to_have_count(0)


def test_two_clicks_on_a_row_open_its_case_once(reading: Page) -> None:
    reading.locator("tr[data-id] .c-place").first.dblclick()
    reading.wait_for_url("**/studies/*")
    assert reading.evaluate("history.length") <= 4


def test_paper_shows_the_list_and_nothing_that_is_only_for_the_screen(reading: Page) -> None:
    reading.emulate_media(media="print")
    for hidden in (".bar", ".filters", ".tools", ".tabs"):
        expect(reading.locator(hidden).first).to_be_hidden()
    expect(reading.locator("tr[data-id]").first).to_be_visible()
    colours = reading.locator("tr[data-id] td").first.evaluate(
        "(cell) => [getComputedStyle(cell).color, getComputedStyle(document.documentElement).backgroundColor]"
    )
    assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert reading.pdf(prefer_css_page_size=True).startswith(b"%PDF")


@pytest.mark.parametrize("path", ["/wall", "/settings"])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_wall_and_settings_are_for_everybody(site: Site, chromium: Browser, path: str, theme: str) -> None:
    for width in (1280, 640):  # 640: twice the size in a window of 1280
        context = chromium.new_context(
            base_url=site.url,
            color_scheme=theme,
            viewport={"width": width, "height": 800},
        )
        page = context.new_page()
        enter(page, Role.RADIOLOGIST)
        page.goto(path)
        assert_accessible(page)
        assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        context.close()
