"""The admin console: who may, what changes, what is shown."""

import csv
import io
import re
import secrets
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import httpx2
import pytest
from playwright.sync_api import Locator, Page, Route, expect
from pynetdicom import AE
from pynetdicom.sop_class import SecondaryCaptureImageStorage, Verification  # type: ignore[attr-defined]
from sqlalchemy import select, update

from clearfilm.config import Config, Destination
from db import alerts, associations, audit, intake, operations, schema, switches
from db.accounts import Role
from db.alerts import AlertKind
from db.associations import Call, Outcome
from db.intake import ReceivedFilm, StudyAttributes
from db.models import Audit, Instance, InstanceState, Job, JobKind, JobState
from db.session import Database
from db.switches import Stage
from tests.integration.worklist.conftest import Site, enter, seed_users, serving

ROOMS = (
    "/admin",
    "/admin/overview",
    "/admin/alerts",
    "/admin/queues",
    "/admin/queues/part",
    "/admin/callers",
    "/admin/callers/part",
    "/admin/destinations",
)
HOSTILE = "<script>x</script>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a destination that takes pictures and no reports, and one that is away."""
    ae = AE("PACS")
    ae.add_supported_context(Verification)
    ae.add_supported_context(SecondaryCaptureImageStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server
    port = server.server_address[1]
    destinations = (
        Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port),
        Destination(name="away", ae_title="AWAY", host="127.0.0.1", port=1, connect_timeout_seconds=1),
    )
    config = Config(data_folder=tmp_path_factory.mktemp("console"), destinations=destinations)
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        seed_users(database)
        with serving(config, database) as url:
            running = Site(url, config, database)
            yield running
            for client in running.clients:
                client.close()
    server.shutdown()


def receive(site: Site) -> int:
    """One film that waits; the number of its analysis."""
    film = ReceivedFilm(
        study=StudyAttributes(study_instance_uid=f"1.2.{secrets.randbelow(10**12)}", patient_name=HOSTILE),
        sop_instance_uid=f"1.2.{secrets.randbelow(10**12)}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        series_instance_uid="1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=secrets.token_hex(32),
        size=1,
        path=f"films/{secrets.token_hex(8)}",
        sender="room 1",
        calling_ae_title="ROOM",
    )
    with site.database.begin() as session:
        intake.record(session, film, now=site.database.now(session), quiet=timedelta(0))
        return session.scalars(select(Job.id).where(Job.kind == JobKind.ANALYSE).order_by(Job.id.desc())).first() or 0


def fail(site: Site, number: int, reason: str) -> None:
    with site.database.begin() as session:
        job = session.get_one(Job, number)
        job.state = JobState.FAILED
        session.execute(
            update(Instance).where(Instance.id == job.instance_id).values(state=InstanceState.FAILED, reason=reason)
        )


def events(site: Site, event: str) -> int:
    with site.database.read() as session:
        return len(session.scalars(select(Audit.id).where(Audit.event == event)).all())


@pytest.mark.parametrize("path", ROOMS)
def test_rooms_are_for_administrators(
    path: str, as_admin: httpx2.Client, as_auditor: httpx2.Client, as_radiologist: httpx2.Client
) -> None:
    assert as_admin.get(path).status_code == 200
    assert as_auditor.get(path).status_code == 403
    assert as_radiologist.get(path).status_code == 403


def test_pause_needs_a_reason_and_happens_once(site: Site, as_admin: httpx2.Client) -> None:
    form = {"stage": "analyse", "paused": "true"}
    assert as_admin.post("/admin/switches", data=form).status_code == 422
    before = events(site, "stage paused")
    for _ in range(2):
        assert as_admin.post("/admin/switches", data=form | {"reason": f"test {HOSTILE}"}).status_code == 303
    assert events(site, "stage paused") == before + 1
    page = as_admin.get("/admin").text
    assert HOSTILE not in page
    assert "test &lt;script&gt;" in page
    assert as_admin.post("/admin/switches", data={"stage": "analyse", "paused": "false"}).status_code == 303
    with site.database.read() as session:
        assert not switches.is_paused(session, Stage.ANALYSE)


def test_cancelled_work_is_taken_back(site: Site, as_admin: httpx2.Client) -> None:
    number = receive(site)
    for expected in ("did=cancel", "did=none"):
        answer = as_admin.post("/admin/queues/act", data={"tab": "waiting", "action": "cancel", "chosen": str(number)})
        assert expected in answer.headers["location"]
    assert "Take back" in as_admin.get("/admin/queues").text
    as_admin.post("/admin/queues/undo", data={"tab": "waiting", "chosen": str(number)})
    with site.database.read() as session:
        assert session.get_one(Job, number).state is JobState.QUEUED


def test_failures_of_one_cause_are_tried_again_together(site: Site, as_admin: httpx2.Client) -> None:
    for _ in range(2):
        fail(site, receive(site), "the stored file is missing")
    fail(site, receive(site), f"analysis failed: unexpected {HOSTILE}")
    page = as_admin.get("/admin/queues?tab=failed").text
    assert "The stored film is missing on the disk" in page
    assert HOSTILE not in page
    form = {"tab": "failed", "action": "retry", "cause": "lost", "kind": "film", "destination": ""}
    assert "n=2" in as_admin.post("/admin/queues/act", data=form).headers["location"]
    assert "did=none" in as_admin.post("/admin/queues/act", data=form).headers["location"]
    form = {"tab": "failed", "action": "retry", "everything": "1"}
    assert "n=1" in as_admin.post("/admin/queues/act", data=form).headers["location"]
    assert "Nothing has failed." in as_admin.get("/admin/queues?tab=failed").text


@pytest.mark.parametrize(
    "form",
    [
        {"tab": "waiting", "action": "cancel", "chosen": "x"},
        {"tab": "waiting", "action": "cancel", "chosen": "9" * 30},
        {"tab": "waiting", "action": "erase", "chosen": "1"},
        {"tab": "waiting", "action": "retry", "chosen": "film:1:"},
        {"tab": "failed", "action": "retry", "chosen": "nothing"},
        {"tab": "elsewhere", "action": "cancel", "chosen": "1"},
    ],
)
def test_action_that_makes_no_sense_changes_nothing(as_admin: httpx2.Client, form: dict[str, str]) -> None:
    assert as_admin.post("/admin/queues/act", data=form).status_code == 422


def test_denied_caller_is_trusted_in_two_steps_and_revoked(site: Site, as_admin: httpx2.Client) -> None:
    with site.database.begin() as session:
        now = site.database.now(session)
        reason = "neither its title nor its address is listed"
        call = Call(Outcome.DENIED, "CR_ROOM4", "CLEARFILM", "10.0.0.4", None, reason, at=now)
        strange = Call(Outcome.DENIED, "<b>\\", "CLEARFILM", "10.0.0.5", None, reason, at=now)
        associations.write(session, [(call, now), (strange, now)])
        entry = associations.newest(session, Outcome.DENIED)[1].id
    page = as_admin.get("/admin/callers").text
    assert "&lt;b&gt;" in page
    assert page.count("/admin/callers/trust?entry=") == 1
    assert "I know this device" in as_admin.get(f"/admin/callers/trust?entry={entry}").text
    form = {"name": "room 4", "ae_title": "CR_ROOM4", "address": "10.0.0.4"}
    assert as_admin.post("/admin/callers/trust", data=form).status_code == 422
    for _ in range(2):
        assert as_admin.post("/admin/callers/trust", data=form | {"confirmed": "yes"}).status_code == 303
    for wrong in ({"ae_title": "*"}, {"address": "10.0.0.0/8"}, {"name": "\n"}):
        assert as_admin.post("/admin/callers/trust", data=form | {"confirmed": "yes"} | wrong).status_code == 422
    assert events(site, "sender trusted") == 1
    with site.database.read() as session:
        (sender,) = associations.trusted(session)
    as_admin.post("/admin/callers/revoke", data={"sender": str(sender.id)})
    with site.database.read() as session:
        assert not associations.trusted(session)


def test_destination_is_rehearsed_and_the_answer_kept(site: Site, as_admin: httpx2.Client) -> None:
    for name, kind in (("pacs", "echo"), ("pacs", "rehearsal"), ("away", "echo")):
        answer = as_admin.post("/admin/destinations/try", data={"destination": name, "kind": kind})
        assert answer.status_code == 303
    page = as_admin.get("/admin/destinations").text
    assert "does not take our results" in page  # it takes the picture, and no report
    assert "Comprehensive 3D SR" in page
    assert "AWAY@127.0.0.1:1 did not answer" in page
    assert events(site, "destination tried") == 3


def test_audit_trail_is_searched_verified_and_exported_without_formulas(
    site: Site, as_auditor: httpx2.Client, as_admin: httpx2.Client
) -> None:
    with site.database.begin() as session:
        audit.record(session, "=cmd()", actor=f"@{HOSTILE}", now=site.database.now(session), note="x")
    page = as_auditor.get("/admin/audit", params={"event": "=cmd()"}).text
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "follows from the one before" in as_auditor.get("/admin/audit/verify").text
    answer = as_auditor.get("/admin/audit/export", params={"event": "=cmd()"})
    assert answer.headers["content-disposition"].startswith("attachment")
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert [rows[1][2], rows[1][3]] == ["'=cmd()", f"'@{HOSTILE}"]
    assert events(site, "audit trail exported") == 1
    assert as_auditor.get("/admin/audit", params={"first": "2026-02-31"}).status_code == 422


def test_audit_trail_is_told_and_searched_in_chinese_and_exported_in_english(site: Site) -> None:
    client = site.client(Role.AUDITOR)
    with site.database.begin() as session:
        now = site.database.now(session)
        for event in ("view saved", "told by a later version"):
            audit.record(session, event, actor="ann", now=now)
    client.post("/settings/language", data={"language": "zh", "next": "/"})
    page = client.get("/admin/audit", params={"event": "保存视图"}).text
    rows = re.findall(r'<td class="words"([^>]*)>([^<]*)</td>', page)
    assert rows == [(' title="view saved"', "保存视图")]
    assert '<input class="small" name="event" list="events" value="保存视图">' in page
    assert "/admin/audit/export?event=view+saved&amp;" in page.replace("view%20saved", "view+saved")
    assert '<td class="words" lang="en">told by a later version</td>' in client.get("/admin/audit").text
    for name in ("保存视图", "view saved"):
        exported = client.get("/admin/audit/export", params={"event": name}).text
        assert [row[2] for row in csv.reader(io.StringIO(exported))] == ["event", "view saved"]
    client.post("/settings/language", data={"language": "en", "next": "/"})


def test_overview_tells_of_each_destination_whether_results_get_there(site: Site) -> None:
    with site.database.begin() as session:
        away = alerts.Finding(AlertKind.DESTINATION, "away", {"error": "nobody listens"})
        alerts.update(session, [away], now=site.database.now(session))
    page = site.client(Role.ADMIN).get("/admin/overview").text
    for name, words in (("away", "results do not get there"), ("pacs", "no trouble")):
        assert re.search(rf">{name}<.*?{words}", page, re.DOTALL), name
    with site.database.begin() as session:
        alerts.update(session, [], now=site.database.now(session))


def test_admin_pauses_and_resumes_in_the_browser(site: Site, browser_page: Page) -> None:
    page = browser_page
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    enter(page, Role.ADMIN)
    page.goto("/admin/queues")
    card = page.locator("form.card", has_text="Sending")
    card.get_by_text("Pause …").click()
    card.get_by_label("Why").fill("PACS update")
    card.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused. What was begun is finished first.")).to_be_visible()
    expect(page.locator("form.card", has_text="Sending")).to_contain_text("PACS update")
    with site.database.read() as session:
        assert switches.is_paused(session, Stage.SEND)
    page.locator("form.card", has_text="Sending").get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Resumed.")).to_be_visible()
    fail(site, receive(site), "the stored file is missing")
    page.goto("/admin/queues?tab=failed")
    page.get_by_role("button", name="Try again").first.click()
    expect(page.get_by_text("tried again.")).to_be_visible()
    receive(site)
    page.goto("/admin/queues")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.get_by_text("1 chosen")).to_be_visible()
    page.goto("/admin")
    with site.database.begin() as session:
        switches.pause(session, Stage.RECEIVE, reason="seen live", actor="ann", now=site.database.now(session))
    expect(page.get_by_text("seen live")).to_be_visible(timeout=10_000)
    with site.database.begin() as session:
        switches.resume(session, Stage.RECEIVE, actor="ann", now=site.database.now(session))
    assert faults == []


# One live update; ends when the part has been renewed, or was left alone.
RENEW = """() => new Promise((done) => {
  document.addEventListener("htmx:finally:request", done, { once: true });
  htmx.trigger(document.getElementById("live"), "node");
})"""
UPDATES = 20


def denied(site: Site, ae_title: str) -> None:
    """A caller that nobody knows."""
    with site.database.begin() as session:
        now = site.database.now(session)
        reason = "neither its title nor its address is listed"
        associations.write(
            session, [(Call(Outcome.DENIED, ae_title, "CLEARFILM", "10.0.0.9", None, reason, at=now), now)]
        )


def test_focused_link_outlives_live_updates(site: Site, browser_page: Page) -> None:
    page = browser_page
    enter(page, Role.ADMIN)
    page.goto("/admin/queues")
    done = page.locator('nav.tabs a[href$="tab=done"]')
    count = page.locator('nav.tabs a[href$="tab=waiting"] .count')
    done.focus()
    place = done.element_handle()
    for _ in range(UPDATES):
        receive(site)
        page.evaluate(RENEW)
        expect(count).to_have_text(waiting(site))
    expect(done).to_be_focused()
    assert place.evaluate("link => link === document.activeElement")
    page.keyboard.press("Enter")
    page.wait_for_url("**tab=done")


def test_focus_stays_at_the_same_caller_while_others_call(site: Site, browser_page: Page) -> None:
    page = browser_page
    denied(site, "CALLS_FIRST")
    enter(page, Role.ADMIN)
    page.goto("/admin/callers?outcome=denied")
    trust = page.locator("tr", has_text="CALLS_FIRST").get_by_role("link", name="Trust …")
    trust.focus()
    for number in range(UPDATES):
        denied(site, f"CALLS_{number}")
        page.evaluate(RENEW)
        expect(page.locator("tr", has_text=f"CALLS_{number}").first).to_be_visible()
    expect(trust).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("AE title")).to_have_value("CALLS_FIRST")


def test_half_typed_reason_outlives_live_updates(site: Site, browser_page: Page) -> None:
    page = browser_page
    enter(page, Role.ADMIN)
    page.goto("/admin/queues")
    card, why = sending(page)
    card.locator("summary").click()
    why.fill("PACS is mo")
    count = page.locator('nav.tabs a[href$="tab=waiting"] .count')
    before = count.inner_text()
    receive(site)
    for _ in range(UPDATES):
        page.evaluate(RENEW)
    page.keyboard.type("ved")
    expect(why).to_be_focused()
    expect(why).to_have_value("PACS is moved")
    expect(card.locator("details")).to_have_attribute("open", "")
    # Left behind, the text is still somebody's work.
    page.locator('nav.tabs a[href$="tab=done"]').focus()
    page.evaluate(RENEW)
    expect(why).to_have_value("PACS is moved")
    card.locator("summary").click()
    page.locator('nav.tabs a[href$="tab=done"]').focus()
    page.evaluate(RENEW)
    assert waiting(site) != before
    expect(count).to_have_text(waiting(site))


def test_answer_on_its_way_does_not_replace_what_somebody_began(site: Site, browser_page: Page) -> None:
    page = browser_page
    held: list[Route] = []
    enter(page, Role.ADMIN)
    page.goto("/admin/queues")
    card, why = sending(page)
    page.route("**/admin/queues/part*", lambda route: held.append(route))
    receive(site)
    with page.expect_request("**/admin/queues/part*"):
        page.evaluate("""() => {
          const ended = (done) => document.addEventListener("htmx:finally:request", done, { once: true });
          window.renewed = new Promise(ended);
          htmx.trigger(document.getElementById("live"), "node");
        }""")
    count = page.locator('nav.tabs a[href$="tab=waiting"] .count')
    before = count.inner_text()
    card.locator("summary").click()
    why.press_sequentially("PACS is")
    held[0].continue_()
    page.evaluate("window.renewed.then(() => true)")
    page.keyboard.type(" moved")
    expect(why).to_be_focused()
    expect(why).to_have_value("PACS is moved")
    expect(count).to_have_text(before)
    assert waiting(site) != before


def sending(page: Page) -> tuple[Locator, Locator]:
    """The switch of sending, and the field for the reason of its pause."""
    card = page.locator("form#switch-send")
    return card, card.get_by_label("Why")


def waiting(site: Site) -> str:
    with site.database.read() as session:
        return str(operations.sizes(session)["waiting"])
