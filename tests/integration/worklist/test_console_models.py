"""Models, policy, configuration and users in the console; a promotion by two people in the browser."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import delete, select

from clearfilm.config import Config
from clearfilm.model_settings import Promotion
from clearfilm.vision import bundle
from clearfilm.vision.bundle import WEIGHTS
from db import accounts, policies, registry, schema
from db.accounts import Role
from db.governance import Signature
from db.models import Audit, ModelBundle, ModelState
from db.policy_tables import Device
from db.session import Database
from tests import bundle_factories
from tests.accessibility import assert_accessible
from tests.integration.worklist.conftest import PASSWORD, Site, enter, form_token, seed_users, serving
from tests.report_factories import report
from worklist import passwords
from worklist.rooms.console import CONSOLE

HOSTILE = "<script>alert(1)</script>"
# Nothing was read silently here: these gates are tested where the readings are.
LIMITS = Promotion(shadow_days=0, shadow_studies=0, shadow_abnormal=0, shadow_share_margin=1)
ROOMS = ("/admin/models", "/admin/models/2", "/admin/policy", "/admin/configuration", "/admin/users")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with an active bundle (1), one that wants to be (2), and a second administrator."""
    folder = tmp_path_factory.mktemp("models")
    path = folder / "config.yaml"
    path.write_text("data_folder: data\nstudy: {quiet_seconds: 7}\n", encoding="utf-8")
    config = Config(data_folder=folder / "data", promotion=LIMITS)
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        seed_users(database)
        with database.begin() as session:
            now = database.now(session)
            hashed = passwords.hash_password(PASSWORD, name="second")
            accounts.add_user(session, "second", Role.ADMIN, hashed, now=now)
            digests = []
            for version in ("1", "2"):
                into = folder / version
                digest = bundle_factories.write_calibrated(into, version)
                registry.register(
                    session,
                    digest=digest,
                    name="Test model",
                    version=version,
                    path=str(into),
                    operating_point={"threshold": 0.3, "sensitivity": 0.95},
                    now=now,
                )
                digests.append(digest)
            registry.start(session, digests[0], actor="worker", now=now)
            row = registry.find(session, digests[1])
            content = report(digests[1], digests[0])
            registry.keep_evaluation(session, row, content, "e" * 64, actor="ml", now=now)
            registry.begin_shadow(session, row, actor="ml", now=now)
            policies.begin(session, config.policy, now=now)
            session.add(Device(sender="room 1", manufacturer=HOSTILE, model="X", serial="1", first_seen_at=now))
        page = config.data_folder / "evaluations" / f"{'e' * 16}.html"
        page.parent.mkdir(parents=True)
        page.write_text(f"<p>figures</p>{HOSTILE}", encoding="utf-8")
        with serving(config, database) as url:
            running = Site(url, config, database)
            yield running
            for client in running.clients:
                client.close()


def second(site: Site) -> httpx2.Client:
    """The other administrator."""
    client = site.client()
    token = form_token(client.get("/login").text)
    client.post("/login", data={"name": "second", "password": PASSWORD, "form_token": token})
    client.headers["x-form-token"] = form_token(client.get("/settings").text)
    return client


def events(site: Site, event: str) -> int:
    with site.database.read() as session:
        return len(session.scalars(select(Audit.id).where(Audit.event == event)).all())


@pytest.mark.parametrize("path", ROOMS)
def test_rooms_are_for_administrators(path: str, as_admin: httpx2.Client, as_auditor: httpx2.Client) -> None:
    answer = as_admin.get(path)
    assert answer.status_code == 200
    assert HOSTILE not in answer.text
    assert as_auditor.get(path).status_code == 403


def test_report_of_an_evaluation_may_do_nothing(as_admin: httpx2.Client) -> None:
    answer = as_admin.get("/admin/models/2/report")
    assert answer.text.startswith("<p>figures</p>")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script-src" not in policy
    assert as_admin.get("/admin/models/1/report").status_code == 404


def test_another_operating_point_makes_a_candidate_with_the_same_weights(site: Site, as_admin: httpx2.Client) -> None:
    page = as_admin.get("/admin/models/2").text
    assert "From 60 abnormal calibration patients" in page
    answer = as_admin.post("/admin/models/2/operating-point", data={"step": "3", "confidence": "0.95"})
    made = int(answer.headers["location"].rpartition("/")[2])
    with site.database.read() as session:
        row, source = session.get_one(ModelBundle, made), session.get_one(ModelBundle, 2)
        assert row.state is ModelState.CANDIDATE
        assert row.operating_point is not None
        assert row.operating_point["misses"] == 3
    found = bundle.load_bundle(Path(row.path), expected_digest=row.digest)
    assert found.description.operating_point is not None
    assert found.description.operating_point.threshold == pytest.approx(44 / 101, abs=1e-5)
    assert (found.folder / WEIGHTS).read_bytes() == (Path(source.path) / WEIGHTS).read_bytes()
    again = as_admin.post("/admin/models/2/operating-point", data={"step": "3", "confidence": "0.95"})
    assert again.headers["location"] == answer.headers["location"]
    assert (
        as_admin.post("/admin/models/2/operating-point", data={"step": "-1", "confidence": "0.95"}).status_code == 422
    )


def test_policy_goes_up_with_two_people_and_down_with_one(site: Site, as_admin: httpx2.Client) -> None:
    def stage() -> str:
        with site.database.read() as session:
            return policies.in_force(session, site.config.policy).standing.stage.value

    assert stage() == "supervised"
    assert as_admin.post("/admin/policy/stage", data={"stage": "active", "reason": " "}).status_code == 422
    assert as_admin.post("/admin/policy/stage", data={"stage": "active", "reason": "ready"}).status_code == 303
    assert as_admin.post("/admin/policy/stage", data={"stage": "active", "reason": "ready"}).status_code in (303, 400)
    assert stage() == "supervised"
    assert second(site).post("/admin/policy/stage", data={"stage": "active", "reason": "yes"}).status_code == 303
    assert stage() == "active"
    assert as_admin.post("/admin/policy/stage", data={"stage": "shadow", "reason": "a miss"}).status_code == 303
    assert stage() == "shadow"


def test_proposed_step_is_withdrawn_by_its_proposer_or_another_admin(site: Site, as_admin: httpx2.Client) -> None:
    form = {"stage": "supervised", "reason": "ready"}
    for client in (as_admin, second(site)):
        assert as_admin.post("/admin/policy/stage", data=form).status_code == 303
        assert "/admin/policy/stage/withdraw" in client.get("/admin/policy").text
        gone = form | {"reason": "too early"}
        assert client.post("/admin/policy/stage/withdraw", data=gone | {"reason": " "}).status_code == 422
        assert client.post("/admin/policy/stage/withdraw", data=gone | {"stage": "active"}).status_code == 400
        assert client.post("/admin/policy/stage/withdraw", data=gone).status_code == 303
        assert "/admin/policy/stage/withdraw" not in client.get("/admin/policy").text
        assert client.post("/admin/policy/stage/withdraw", data=gone).status_code == 400
    assert events(site, "policy stage withdrawn") == 2
    assert "withdrawn" in as_admin.get("/admin/policy").text


def test_first_signature_of_a_device_is_withdrawn(site: Site, as_admin: httpx2.Client) -> None:
    assert as_admin.post("/admin/policy/release", data={"device": "1", "reason": "looked"}).status_code == 303
    assert 'action="/admin/policy/withdraw"' in as_admin.get("/admin/policy").text
    assert as_admin.post("/admin/policy/withdraw", data={"device": "1", "reason": "the wrong one"}).status_code == 303
    assert 'action="/admin/policy/withdraw"' not in as_admin.get("/admin/policy").text


def test_device_is_released_by_two_people(site: Site, as_admin: httpx2.Client) -> None:
    for client in (as_admin, second(site)):
        assert client.post("/admin/policy/release", data={"device": "1", "reason": "looked"}).status_code == 303
    with site.database.read() as session:
        assert session.get_one(Device, 1).released_by == "second"
    assert as_admin.post("/admin/policy/withdraw", data={"device": "1", "reason": "moved"}).status_code == 303
    with site.database.read() as session:
        assert session.get_one(Device, 1).released_at is None


def test_changed_configuration_is_tried_and_nothing_written(as_admin: httpx2.Client) -> None:
    answer = as_admin.post("/admin/configuration", data={"text": f"node: {{port: 0, nothing: 1}}\nx: '{HOSTILE}'"})
    assert "2 faults" in answer.text
    assert HOSTILE not in answer.text
    answer = as_admin.post("/admin/configuration", data={"text": "listener: {maximum_connections: 5}"})
    assert "listener.maximum_connections" in answer.text
    assert "Must be started again:" in answer.text


def test_users_are_added_changed_and_disabled_but_not_by_themselves(site: Site, as_admin: httpx2.Client) -> None:
    form = {"name": "Carol", "role": "reader", "password": "a long enough one"}
    assert as_admin.post("/admin/users/add", data=form).status_code == 303
    assert as_admin.post("/admin/users/add", data=form).status_code == 409
    assert as_admin.post("/admin/users/add", data=form | {"name": "x y"}).status_code == 422
    assert as_admin.post("/admin/users/add", data=form | {"name": "dave", "password": "short"}).status_code == 422
    with site.database.read() as session:
        carol = accounts.user(session, "carol")
        me = accounts.user(session, "admin")
    assert carol is not None
    assert me is not None
    assert as_admin.post("/admin/users/role", data={"user": str(carol.id), "role": "auditor"}).status_code == 303
    for _ in range(2):
        assert as_admin.post("/admin/users/disable", data={"user": str(carol.id), "on": "true"}).status_code == 303
    assert events(site, "user disabled") == 1
    new = {"user": str(carol.id), "password": "another long one"}
    assert as_admin.post("/admin/users/password", data=new).status_code == 303
    assert as_admin.post("/admin/users/disable", data={"user": str(me.id), "on": "true"}).status_code == 409
    with site.database.read() as session:
        changed = accounts.user(session, "carol")
        assert changed is not None
        assert (changed.role, changed.disabled_at is None) == (Role.AUDITOR, False)


def test_signature_for_a_promotion_is_withdrawn_by_keyboard(site: Site, chromium: Browser) -> None:
    context = chromium.new_context(base_url=site.url)
    page = context.new_page()
    enter(page, Role.ADMIN)
    page.goto("/admin/models/2")
    for field in page.locator('input[name^="waive-"]').all():
        field.fill("looked at by hand")
    page.get_by_label("Reason").first.fill("better on our films")
    page.get_by_role("button", name="Sign as").click()
    expect(page.get_by_text("1 of 2 signatures")).to_be_visible()
    page.locator("#withdraw summary").focus()
    for key in ("Enter", "Tab"):
        page.keyboard.press(key)
    page.keyboard.type("too early")
    for key in ("Tab", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_text("0 of 2 signatures")).to_be_visible()
    expect(page.locator("#withdraw")).to_have_count(0)
    expect(page.get_by_text("too early")).to_be_visible()
    assert events(site, "model promotion withdrawn") == 1
    with site.database.begin() as session:  # as it was before, for the tests below
        session.execute(delete(Signature))
    context.close()


def test_two_people_promote_in_the_browser_and_one_goes_back(site: Site, chromium: Browser) -> None:
    def sign(page: Page, reason: str) -> None:
        page.goto("/admin/models/2")
        for field in page.locator('input[name^="waive-"]').all():
            field.fill("looked at by hand")
        page.get_by_label("Reason").first.fill(reason)
        page.get_by_role("button", name="Sign as").click()

    first, other = chromium.new_context(base_url=site.url), chromium.new_context(base_url=site.url)
    page = first.new_page()
    enter(page, Role.ADMIN)
    sign(page, "better on our films")
    expect(page.get_by_text("1 of 2 signatures")).to_be_visible()
    sign(page, "once more")
    expect(page.get_by_text("has signed already")).to_be_visible()
    colleague = other.new_page()
    colleague.goto("/login")
    colleague.get_by_label("Name").fill("second")
    colleague.get_by_label("Password").fill(PASSWORD)
    colleague.get_by_role("button", name="Log in").click()
    colleague.wait_for_url(lambda url: "/login" not in url)
    sign(colleague, "I agree")
    expect(colleague.locator("h1 .chip")).to_have_text("active")
    with site.database.read() as session:
        assert session.get_one(ModelBundle, 2).state is ModelState.ACTIVE
        assert list(session.scalars(select(Signature.user).order_by(Signature.id))) == ["admin", "second"]
    page.goto("/admin/models/1")
    page.get_by_text("Roll back to this model").click()
    page.get_by_label("Reason").fill("misses on Monday")
    page.get_by_role("button", name="Make it the active model now").click()
    expect(page.locator("h1 .chip")).to_have_text("active")
    with site.database.read() as session:
        assert session.get_one(ModelBundle, 1).state is ModelState.ACTIVE
    first.close()
    other.close()


@pytest.mark.parametrize(("theme", "language"), [("dark", "en"), ("light", "zh")])
def test_every_room_is_fit_for_everybody_and_fits(site: Site, chromium: Browser, theme: str, language: str) -> None:
    context = chromium.new_context(base_url=site.url, color_scheme=theme, viewport={"width": 1280, "height": 800})  # type: ignore[arg-type]
    context.add_cookies([{"name": "language", "value": language, "url": site.url}])
    page = context.new_page()
    page.goto("/login")
    page.locator('input[name="name"]').fill("second")
    page.locator('input[type="password"]').fill(PASSWORD)
    page.locator('form[action="/login"] button').click()
    page.wait_for_url(lambda url: "/login" not in url)
    for path in (*(path for path, *_ in CONSOLE), "/admin/models/1", "/admin/models/2", "/admin/queues?tab=failed"):
        page.goto(path)
        for details in page.locator("details.more").all():
            details.evaluate("details => { details.open = true; }")
        assert_accessible(page)
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, path
    page.set_viewport_size({"width": 640, "height": 400})  # 200 % zoom
    for path, *_ in CONSOLE:
        page.goto(path)
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, path
    context.close()
