"""The page of the list in a browser: keyboard, filters, live rows, hostile text."""

import csv
import io
from datetime import timedelta

import httpx2
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from clearfilm.policy.stages import Stage
from clearfilm.triage import Decision
from db import audit
from db.accounts import Role
from db.intake import ReceivedFilm, StudyAttributes, record
from db.models import Study, StudyState
from db.policy_tables import PolicyStep
from tests.integration.worklist.conftest import Site, enter

HOSTILE = (
    "<script>window.hit=1</script>",
    '"><img src=x onerror="window.hit=1">',
    "{{7*7}}",
    "'; DROP TABLE studies; --",
    "\u202egnp.exe",
    "=HYPERLINK(1)",
    "A" * 256,
)


def receive(site: Site, number: int, **attributes: str | None) -> int:
    """Take a film in as the listener does, and tell the open pages."""
    values = {"patient_name": f"Zhang^{number}=张^{number}", "patient_id": f"P{number:04d}", **attributes}
    film = ReceivedFilm(
        study=StudyAttributes(study_instance_uid=f"1.2.{number}", **values),
        sop_instance_uid=f"1.2.{number}.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        series_instance_uid=f"1.2.{number}.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=f"{number:064x}",
        size=1,
        path=f"films/{number}.dcm",
        sender="demo",
        calling_ae_title="MODALITY",
    )
    with site.database.begin() as session:
        now = site.database.now(session)
        record(session, film, now=now, quiet=timedelta(seconds=10))
        audit.record(session, "test film", actor="test", now=now)
    return number


@pytest.fixture(scope="module", autouse=True)
def studies(site: Site) -> None:
    for number in range(1, 9):
        receive(site, number)
    for number, text in enumerate(HOSTILE, 100):
        receive(site, number, patient_name=text, patient_id=text, accession_number=text, location=text)


@pytest.fixture
def reading(browser_page: Page) -> Page:
    enter(browser_page, Role.RADIOLOGIST)
    browser_page.goto("/worklist")
    browser_page.locator(".live:not(.lost)").wait_for()
    return browser_page


def focused(page: Page) -> str | None:
    return page.locator("tr[data-id]:focus").get_attribute("data-id")


def test_keyboard_walks_searches_and_changes_views(reading: Page) -> None:
    first = reading.locator("tr[data-id]").nth(0).get_attribute("data-id")
    second = reading.locator("tr[data-id]").nth(1).get_attribute("data-id")
    reading.keyboard.press("j")
    assert focused(reading) == first
    reading.keyboard.press("ArrowDown")
    assert focused(reading) == second
    reading.keyboard.press("Space")
    reading.locator(".expanded .details").wait_for()
    reading.keyboard.press("Escape")
    expect(reading.locator(".expanded")).to_have_count(0)
    reading.keyboard.press("k")
    assert focused(reading) == first
    reading.keyboard.press("n")
    assert focused(reading) == second
    reading.keyboard.press("6")
    reading.wait_for_url("**/worklist?sort=received&order=desc")
    reading.keyboard.press("/")
    reading.keyboard.type("zhang 3")
    reading.wait_for_url("**q=zhang+3*")
    expect(reading.locator("tr[data-id]")).to_have_count(1)
    expect(reading.locator("#f-q")).to_be_focused()
    assert "Zhang" not in reading.title()


def test_language_keeps_the_filter(reading: Page) -> None:
    reading.goto("/worklist?q=zhang&sex=O&sort=received&order=desc")
    reading.get_by_role("button", name="中文").click()
    expect(reading.locator("html")).to_have_attribute("lang", "zh-CN")
    assert reading.url.endswith("/worklist?q=zhang&sex=O&sort=received&order=desc")
    reading.get_by_role("button", name="English").click()
    expect(reading.locator("html")).to_have_attribute("lang", "en")


def test_a_new_row_does_not_move_the_focused_one(reading: Page, site: Site) -> None:
    reading.goto("/worklist?sort=received&order=desc")
    reading.locator(".live:not(.lost)").wait_for()
    reading.keyboard.press("j")
    row = reading.locator("tr[data-id]:focus")
    before = row.bounding_box()
    number = receive(site, 500)
    study = reading.locator("tr[data-id]", has_text=f"P{number:04d}")
    study.wait_for(state="attached")
    expect(study).to_be_visible()
    assert before
    assert row.bounding_box() == pytest.approx(before, abs=1)


def test_hostile_text_executes_nothing(reading: Page) -> None:
    reading.goto("/worklist?sort=received&order=desc")
    expect(reading.locator("tr[data-id]", has_text="<script>")).to_have_count(1)
    expect(reading.locator("tr[data-id]", has_text="‹U+202E›")).to_have_count(1)
    assert reading.evaluate("window.hit") is None
    assert reading.locator("main script, main img[src=x]").count() == 0


def test_nonsense_in_the_address_is_told_and_the_list_is_shown(as_reader: httpx2.Client) -> None:
    answer = as_reader.get("/worklist?age_from=old&sort=received&%00=1")
    assert answer.status_code == 200
    assert "age_from" in answer.text
    assert "data-id" in answer.text


def test_file_holds_no_formula(as_reader: httpx2.Client) -> None:
    answer = as_reader.get("/worklist.csv?sort=received")
    assert answer.content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"), newline="")))
    assert any("'=HYPERLINK(1)" in row for row in rows)
    assert not any(value.startswith(("=", "+", "-", "@")) for row in rows for value in row)


def test_views_are_saved_for_their_owner(site: Site, as_reader: httpx2.Client, as_radiologist: httpx2.Client) -> None:
    assert as_reader.post("/worklist/views", data={"name": "My women", "query": "sex=F"}).status_code == 303
    assert "My women" in as_reader.get("/worklist").text
    assert "My women" not in as_radiologist.get("/worklist").text


def test_wall_names_nobody(as_reader: httpx2.Client) -> None:
    page = as_reader.get("/wall").text
    assert "Zhang" not in page
    assert "P0001" not in page


def test_auditor_sees_no_list(as_auditor: httpx2.Client) -> None:
    for path in ("/worklist", "/worklist.csv", "/wall", "/worklist/counts", "/worklist/studies/1/details"):
        assert as_auditor.get(path).status_code == 403


def test_level_s_chip_fits_its_column(reading: Page, site: Site) -> None:
    number = receive(site, 300, patient_id="LIMITED")
    with site.database.begin() as session:
        now = site.database.now(session)
        session.add(PolicyStep(at=now, stage=Stage.ACTIVE, actor="test", reason="test", detail={}))
        study = session.scalars(select(Study).where(Study.patient_id == "LIMITED")).one()
        study.state, study.revision, study.decision = StudyState.CONCLUDED, 1, Decision.NO_SIGNIFICANT_FINDING
        study.concluded_at, study.lowered_until = now, now - timedelta(minutes=1)
        assert study.study_instance_uid == f"1.2.{number}"
    reading.goto("/worklist?q=LIMITED")
    chip = reading.locator("td.c-level .chip")
    expect(chip).to_have_text("At its limit")
    overflow = chip.evaluate("""(chip) => {
        const cell = chip.closest("td"), room = parseFloat(getComputedStyle(cell).paddingRight);
        return chip.getBoundingClientRect().right - (cell.getBoundingClientRect().right - room);
    }""")
    assert overflow <= 0
    assert reading.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
