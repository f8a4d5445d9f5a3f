"""Every link that a role is shown leads somewhere, on a node that has everything to show."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.routing import Match

from clearfilm.config import Config, Destination, Sender
from clearfilm.policy.stages import Signature as StageSignature
from clearfilm.policy.stages import Stage as PolicyStage
from db import alerts, associations, operations, peer_checks, policies, registry, schema, switches, training_runs, views
from db.accounts import Role, User
from db.alerts import AlertKind, Finding
from db.associations import Call, Outcome
from db.models import Instance, InstanceState, Job, JobKind, JobState, Study, StudyState
from db.peer_checks import PeerCheck
from db.policy_tables import Device
from db.session import Database
from db.switches import Stage
from tests import bundle_factories
from tests.integration.worklist.conftest import PASSWORD, Site, seed_users, serving
from tests.integration.worklist.films import SAMPLES, Archive
from tests.report_factories import report as evaluation
from worklist import access
from worklist.app import ROOMS
from worklist.rooms.console import CONSOLE

DESTINATION = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1)
# Addresses that differ in the values of their parameters only: so many of them are tried.
MOST_ALIKE = 3
# Rows enough for a second page of each list.
MANY = 110


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node with studies, jobs, callers, models and alerts in each state."""
    config = Config(
        data_folder=tmp_path_factory.mktemp("links"),
        senders=(Sender(name="room 1", ae_title="XR_ROOM1", addresses=("127.0.0.1",)),),
        destinations=(DESTINATION,),
        study={"quiet_seconds": 0},
        worklist={"viewer_url": "https://pacs.invalid/?study={study_instance_uid}"},
    )
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        seed_users(database)
        archive = Archive(database, config)
        archive.activate_model()
        numbers = add_studies(archive)
        with database.begin() as session:
            now = database.now(session)
            add_work(session, numbers, now)
            add_callers(session, now)
            add_models(session, config, now)
            add_the_rest(session, config, now)
        with serving(config, database) as server:
            site = Site(server, config, database)
            judge(site, numbers)
            yield site
            site.close()


def add_studies(archive: Archive) -> list[int]:
    """Two studies of one patient with an answer each, and one without."""
    found, _ = archive.add("08-cr-portable.dcm", 0.9, PatientID="SAME")
    clear, _ = archive.add("02-cr-latin.dcm", 0.05, PatientID="SAME")
    refused, film = archive.receive(SAMPLES / "06-cr-mass.dcm")
    archive.give_up(film, "body part is not the chest")
    archive.conclude(refused)
    waiting, _ = archive.receive(SAMPLES / "06-cr-mass.dcm")
    return [found, clear, refused, waiting]


def add_work(session: Session, numbers: list[int], now: datetime) -> None:
    """Jobs of each kind and state, more than a page of those that are done; failures of two causes."""
    for state, count in ((JobState.DONE, MANY), (JobState.RUNNING, 1), (JobState.QUEUED, MANY)):
        for _ in range(count):
            job = Job(
                kind=JobKind.DELIVER, state=state, study_id=numbers[0], destination="pacs", revision=1,
                run_after=now, created_at=now, finished_at=now if state is JobState.DONE else None,
            )  # fmt: skip
            session.add(job)
    session.flush()
    cancelled = session.scalars(select(Job.id).where(Job.state == JobState.QUEUED)).first()
    operations.cancel(session, [cancelled or 0], actor="admin", now=now)
    for position, reason in enumerate(("the stored file is missing", "unexpected KeyError")):
        study = Study(study_instance_uid=f"1.2.{position}", first_received_at=now, last_received_at=now)
        study.state, study.reason = StudyState.FAILED, reason
        session.add(study)
        session.flush()
        film = Instance(
            study_id=study.id, sop_instance_uid=f"1.2.3.{position}", sop_class_uid="1.2", transfer_syntax_uid="1.2",
            digest=f"{position:064}", size=1, path=f"films/none{position}", sender="room 1",
            calling_ae_title="XR_ROOM1", received_at=now, state=InstanceState.FAILED, reason=reason,
        )  # fmt: skip
        session.add(film)


def add_callers(session: Session, now: datetime) -> None:
    reasons = {
        Outcome.ACCEPTED: "",
        Outcome.DENIED: "neither its title nor its address is listed",
        Outcome.DEFERRED: "receiving is paused",
    }
    for outcome, reason in reasons.items():
        calls = [Call(outcome, f"ROOM{n}", "CLEARFILM", f"10.0.0.{n}", None, reason, at=now) for n in range(MANY)]
        associations.write(session, [(call, now) for call in calls])
    associations.trust(
        session, name="trusted", ae_title="ROOM_X", address="10.0.0.200", taken=(), actor="admin", now=now
    )


def add_models(session: Session, config: Config, now: datetime) -> None:
    """Beside the active one a candidate with evaluation and page, one that reads silently, and a run."""
    page = config.data_folder / "evaluations" / f"{'e' * 16}.html"
    page.parent.mkdir()
    page.write_text("<p>figures</p>", encoding="utf-8")
    active = registry.active(session)
    assert active
    for version in ("2", "3"):
        folder = config.data_folder / "models" / version
        digest = bundle_factories.write_calibrated(folder, version)
        point = {"threshold": 0.3, "sensitivity": 0.95}
        registry.register(
            session, digest=digest, name="Test model", version=version, path=str(folder), operating_point=point, now=now
        )
        row = registry.find(session, digest)
        content = evaluation(digest, active.digest)
        registry.keep_evaluation(
            session, row, content, version + "e" * 63 if version == "3" else "e" * 64, actor="ml", now=now
        )
    registry.begin_shadow(session, row, actor="ml", now=now)
    training_runs.begin(
        session, folder="/runs/1", cohort_digest="c" * 64, cohort_folder="/cohorts/1", cohort={}, settings={},
        started_by="admin", owner="host:1", now=now,
    )  # fmt: skip


def add_the_rest(session: Session, config: Config, now: datetime) -> None:
    """Alerts, pauses, tries, devices, a proposal, views."""
    kinds = [Finding(AlertKind.STUCK, "", {"minutes": 40}), Finding(AlertKind.FAILURES, "", {"count": 2})]
    alerts.update(session, kinds, now=now - timedelta(hours=1))
    alerts.update(session, kinds[1:], now=now)
    switches.pause(session, Stage.SEND, reason="archive is moved", actor="admin", now=now)
    for kind, good in (("echo", True), ("rehearsal", False)):
        check = PeerCheck(destination="pacs", kind=kind, good=good, message="", detail={}, actor="admin", at=now)
        peer_checks.keep(session, check)
    session.add(Device(sender="room 1", manufacturer="Maker", model="X", serial="1", first_seen_at=now))
    policies.begin(session, config.policy, now=now)
    signature = StageSignature("somebody", "it went well", now)
    policies.request_step(session, config.policy, PolicyStage.ACTIVE, signature)
    for user in session.scalars(select(User)):
        if user.role is not Role.AUDITOR:
            views.save(session, user.id, f"Women & men of {user.name}", "sex=F&q=a%26b", shared=True, now=now)


def judge(site: Site, numbers: list[int]) -> None:
    """Verdicts of a radiologist; the trail is longer than a page."""
    client = site.client(Role.RADIOLOGIST)
    for number, says in ((numbers[0], "disagree"), (numbers[1], "agree")):
        form = {"revision": "1", "token": f"{number:020}", "says": says, "comment": "seen"}
        assert client.post(f"/studies/{number}/verdict", data=form).status_code == 303
    for _ in range(MANY):
        assert client.get(f"/studies/{numbers[0]}").status_code == 200


@dataclass
class Shown(HTMLParser):
    """Addresses that a page offers: to follow, and to send changes to."""

    links: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._form: tuple[str, dict[str, str], list[tuple[str, str]]] | None = None
        self._forms: dict[str, tuple[str, dict[str, str], list[tuple[str, str]]]] = {}
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        for name in ("hx-get", "src", "href", "data-src"):
            if name in found and not found[name].startswith("#"):
                self.links.append(found[name])
        if tag == "form" and found.get("method", "get").lower() == "post":
            self.changes.append(found["action"])
        elif tag == "form" and "action" in found:
            self._form = (found["action"], {}, [])
            self._forms[found.get("id", f"nameless {len(self._forms)}")] = self._form
        elif tag == "tr" and "data-id" in found:  # the space bar asks for these
            self.links.append(f"/worklist/studies/{found['data-id']}/details")
        elif tag in ("input", "select", "option"):
            self._field(tag, found)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None

    def _field(self, tag: str, found: dict[str, str]) -> None:
        form = self._forms.get(found["form"]) if "form" in found else self._form
        if tag == "select":
            self._select, self._of_select = found.get("name", ""), form
        if tag == "option":
            form, found = self._of_select if self._select else None, {"name": self._select, **found}
        if form is None or not found.get("name"):
            return
        choice = tag == "option" or found.get("type") in ("checkbox", "radio")
        if choice:
            form[2].append((found["name"], found.get("value", "")))
        elif tag == "input":
            form[1][found["name"]] = found.get("value", "")

    def searches(self) -> Iterator[str]:
        """What the forms ask for: as they stand, and with each choice alone."""
        for action, values, choices in self._forms.values():
            yield f"{action}?{urlencode(values)}"
            for name, value in choices:
                yield f"{action}?{urlencode(values | {name: value})}"


def kind_of(address: str) -> tuple[str, tuple[str, ...]]:
    """What addresses have in common that one page makes: the path, numbers aside, and the parameters."""
    parts = urlsplit(address)
    path = "/".join("1" if part.isdecimal() else part for part in parts.path.split("/"))
    return path, tuple(sorted({name for name, value in parse_qsl(parts.query, keep_blank_values=True)}))


def crawl(client: httpx2.Client) -> tuple[dict[str, int], set[str], dict[str, str]]:
    """Follow everything from the front page on: status of each address, addresses of changes, who linked."""
    seen: dict[str, int] = {}
    alike: dict[tuple[str, tuple[str, ...]], int] = {}
    linked, changes = {"/": ""}, set[str]()
    waiting = deque(["/"])
    while waiting:
        address = waiting.popleft()
        if address in seen or alike.get(kind_of(address), 0) >= MOST_ALIKE:
            continue
        alike[kind_of(address)] = alike.get(kind_of(address), 0) + 1
        answer = client.get(address)
        seen[address] = answer.status_code
        if answer.is_redirect:
            found = [answer.headers["location"]]
        elif answer.headers.get("content-type", "").startswith("text/html"):
            page = Shown()
            page.feed(answer.text)
            found = [*page.links, *page.searches()]
            changes.update(page.changes)
        else:
            continue
        for target in found:
            there = urljoin(address, target)
            if there.startswith("/") and linked.setdefault(there, address) == address:
                waiting.append(there)
    return seen, changes, linked


def roles_of(method: str, path: str) -> frozenset[Role] | None:
    """Who may call an address."""
    for room in ROOMS:
        for route in room.routes:
            if route.matches({"type": "http", "method": method, "path": path})[0] is Match.FULL:
                return access.declared(route.endpoint)  # type: ignore[attr-defined]
    raise AssertionError(f"{method} {path} does not exist")


@pytest.mark.parametrize("role", list(Role))
def test_every_link_leads_somewhere(site: Site, role: Role) -> None:
    seen, changes, linked = crawl(site.client(role))
    dead = {address: (status, linked[address]) for address, status in seen.items() if status >= 400}
    assert dead == {}
    forbidden = {path for path in changes if (roles := roles_of("POST", path)) is not None and role not in roles}
    assert forbidden == set()
    paths = {kind_of(address)[0] for address in seen}
    expected = {"/admin/audit"} if role is Role.AUDITOR else {"/worklist", "/studies/1", "/wall", "/settings"}
    if role is Role.ADMIN:
        expected |= {"/admin/models/1/report", "/admin/callers/trust", "/admin/queues/part", "/admin/users"}
    assert expected <= paths


# Words of the trade, of the configuration and its purposes, and what the people of this site wrote, all lower case.
ENGLISH = frozenset(
    re.findall(
        r"\S+",
        """
    clearfilm ae aes auc csv c-echo pacs dicom sr sc gb mb sqlite utc shift ctrl esc ct url webhook gpu https yaml
    config root null alerts mail host policy routine orders guarded locations red flags no finding active stage
    admin auditor radiologist reader somebody pacs room trusted maker test model data tests archive is moved
    it went well keyerror seen demo nih chestx made into sample
    a-associate-rq adamw addendum all ascii asia auto base callback cam corrected cpu cuda final gradcam hmac
    hub imagenet login msh none oidc openid pdu pem postgresql preliminary pytorch-grad-cam random retrain roles
    shanghai smtp sqlalchemy strict tcp tensorboard tls torchvision x-forwarded-for x-forwarded-proto
    """,
    )
)
# Words in texts of the page: not in code, keys, times, or what is marked as another language or as somebody's text.
WORDS = """() => {
  const places = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const other = ".code, code, kbd, script, style, time, pre, textarea, bdi, [lang=en], [name=zone]";
  const found = new Set();
  for (let place = places.nextNode(); place; place = places.nextNode()) {
    if (place.parentElement.closest(other)) continue;
    for (const word of place.data.match(/(?<![\\w-])[A-Za-z][A-Za-z'-]+(?!\\w)/g) || []) found.add(word);
  }
  return [...found];
}"""
TABS = ("running", "sending", "failed", "done")


def test_chinese_pages_hold_no_english(site: Site, chromium: Browser) -> None:
    context = chromium.new_context(base_url=site.url, viewport={"width": 1280, "height": 800})
    context.add_cookies([{"name": "language", "value": "zh", "url": site.url}])
    page = context.new_page()
    page.goto("/login")
    english = {"/login": page.evaluate(WORDS)}
    page.locator('input[name="name"]').fill(Role.ADMIN.value)
    page.locator('input[type="password"]').fill(PASSWORD)
    page.locator('form[action="/login"] button').click()
    page.wait_for_url(lambda url: "/login" not in url)
    paths = [path for path, *_ in CONSOLE]
    paths += [f"/admin/queues?tab={tab}" for tab in TABS] + [f"/admin/models/{number}" for number in (1, 2, 3)]
    paths += ["/admin/audit/verify", "/settings", "/wall", "/worklist?sort=received&order=desc", "/nowhere"]
    paths += [f"/studies/{number}" for number in (1, 2, 3, 4, 5)]
    for path in paths:
        page.goto(path)
        english[path] = page.evaluate(WORDS)
    context.close()
    found = {path: [word for word in words if word.lower() not in ENGLISH] for path, words in english.items()}
    assert {path: words for path, words in found.items() if words} == {}
