"""Whole days at a running node that films come to by C-STORE: by keyboard alone, in both languages."""

import csv
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from clearfilm import config as configuration
from clearfilm.alert_words import SENTENCES
from clearfilm.counts import Counted
from clearfilm.dicom import scu
from clearfilm.errors import PeerUnreachable
from clearfilm.triage import Decision
from db import registry
from db.accounts import Role
from db.alerts import AlertKind
from db.session import Database
from db.switches import Stage
from tests import bundle_factories
from tests.acceptance.films import fresh_film, sample
from tests.acceptance.nodes import Node, assert_nothing_doubled, await_condition, read_journal
from tests.accessibility import assert_accessible
from tests.integration.commands import clearfilm
from tests.report_factories import report
from worklist.rooms.alert_words import STAGES
from worklist.rooms.console_queues import DONE
from worklist.templates import LANGUAGES, Templates

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PASSWORD = "correct horse battery"
# A patient for each language: the name as sent, what a reader types, what the list shows.
PATIENTS = {"en": ("Weaver^Ada", "weaver", "Weaver"), "zh": ("=周^丽", "zhouli", "周")}
FILMS = ("cr-square-grid", "cr-pneumothorax", "child")
MOST_TABS = 120
# Version of a model that wants to be the active one.
CANDIDATE = "2"
Send = Callable[..., str]


@dataclass(frozen=True)
class Person:
    """Somebody at a keyboard, who works in one language."""

    page: Page
    language: str
    role: Role

    @property
    def name(self) -> str:
        return user_name(self.role, self.language)

    def say(self, message: str | Counted, **values: object) -> str:
        """A sentence of the pages in the person's language."""
        return WORDS.translate(self.language, message, **values)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, target: Locator, key: str = "Tab") -> None:
        """Press Tab, or another key that moves on, until the target has the focus."""
        target.wait_for()
        for _ in range(MOST_TABS):
            if target.evaluate("place => place === document.activeElement"):
                return
            self.press(key)
        raise AssertionError(f"{target} is not reached with {MOST_TABS} times {key}")

    def follow(self, target: Locator) -> None:
        self.tab_to(target)
        self.press("Enter")

    def button(self, label: str) -> Locator:
        return self.page.get_by_role("button", name=self.say(label), exact=True)

    def link(self, label: str) -> Locator:
        return self.page.get_by_role("link", name=self.say(label), exact=True)

    def choose(self, language: str) -> None:
        """Change the language with the button of the bar."""
        if self.page.locator("html").get_attribute("lang") != LANG[language]:
            self.follow(self.page.get_by_role("button", name=LANGUAGES[language]))
        expect(self.page.locator("html")).to_have_attribute("lang", LANG[language])

    def log_in(self) -> None:
        self.page.goto("/login")
        self.choose(self.language)
        assert_accessible(self.page)
        self.page.get_by_label(self.say("Name")).wait_for()
        self.page.keyboard.type(self.name)
        self.press("Tab")
        self.page.keyboard.type(PASSWORD)
        self.press("Enter")
        self.page.wait_for_url(lambda url: "/login" not in url)

    def log_out(self) -> None:
        self.follow(self.page.locator("details.menu > summary", has_text=self.name))
        self.follow(self.button("Log out"))
        self.page.wait_for_url("**/login")
        self.page.goto("/worklist")
        self.page.wait_for_url("**/login?next=**")


WORDS = Templates()
LANG = {"en": "en", "zh": "zh-CN"}


def user_name(role: Role, language: str) -> str:
    return f"{role.value}-{language}"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: int) -> Iterator[Node]:
    """A running node with its people. No answer is withheld by chance."""
    settings = {"policy.blind_share": 0, "alerts.paused_hours": 1e-5}
    node = Node(tmp_path_factory.mktemp("days"), pacs, settings=settings)
    node.start()
    add_candidate(node)
    password = node.folder / "password"
    password.write_text(f"{PASSWORD}\n", encoding="utf-8")
    for language in LANGUAGES:
        for role in (Role.RADIOLOGIST, Role.ADMIN, Role.AUDITOR):
            name = user_name(role, language)
            added = clearfilm(
                node.config_path, "user", "add", name, "--role", role.value, "--password-file", str(password)
            )
            assert added.returncode == 0, added.stderr
    yield node
    assert node.stop() == 0


def add_candidate(node: Node) -> None:
    """A bundle with an evaluation and its page, which nothing has read silently."""
    folder = node.folder / "candidate"
    digest = bundle_factories.write_calibrated(folder, CANDIDATE)
    page = node.data / "evaluations" / f"{'e' * 16}.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text("<p>figures of the evaluation</p>", encoding="utf-8")
    with closing(Database(configuration.load(node.config_path).database_url)) as database, database.begin() as session:
        now = database.now(session)
        registry.register(
            session,
            digest=digest,
            name="Test model",
            version=CANDIDATE,
            path=str(folder),
            operating_point={"threshold": 0.3, "sensitivity": 0.95},
            now=now,
        )
        active = registry.active(session)
        assert active
        content = report(digest, active.digest)
        registry.keep_evaluation(session, registry.find(session, digest), content, "e" * 64, actor="ml", now=now)


@pytest.fixture(scope="module")
def send(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Send:
    """Sends a new study of the patient of a language; its UID."""
    folder = tmp_path_factory.mktemp("films")

    def send_one(film: str, language: str) -> str:
        path, uid = fresh_film(
            folder,
            sample(film),
            SpecificCharacterSet="ISO_IR 192",
            PatientName=PATIENTS[language][0],
            PatientID=f"DAY-{language}",
        )
        node.send_until_stored(path)
        return uid

    return send_one


@pytest.fixture(scope="module")
def studies(node: Node, send: Send) -> None:
    """One study of each answer for each language, delivered to the PACS."""
    sent = [send(film, language) for language in LANGUAGES for film in FILMS]
    node.await_done()
    found = [node.study(uid) for uid in sent]
    assert {study["decision"] for study in found if study} == {decision.value for decision in Decision}


@pytest.fixture(params=list(LANGUAGES))
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(chromium: Browser, node: Node, studies: None) -> Iterator[Page]:
    """An empty page of a new visitor, which must not complain."""
    context = chromium.new_context(base_url=node.worklist, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


def test_radiologists_day(page: Page, language: str, send: Send) -> None:
    person = Person(page, language, Role.RADIOLOGIST)
    person.log_in()
    page.wait_for_url("**/worklist")
    view_of_the_patient(person)
    read_the_cases(person)
    keep_the_row_while_a_film_arrives(person, send)
    person.log_out()


def view_of_the_patient(person: Person) -> None:
    """Search in the newest studies, and keep the search under a number."""
    page, (_, typed, shown) = person.page, PATIENTS[person.language]
    live(page)
    assert_accessible(page)
    person.press("6")
    page.wait_for_url("**/worklist?sort=received&order=desc")
    person.press("/")
    page.keyboard.type(typed)
    page.wait_for_url(f"**q={typed}*")
    expect(rows(page)).to_have_count(len(FILMS))
    for decision in Decision:
        words = page.locator("tr[data-id] .finding-words").get_by_text(person.say(decision.words), exact=True)
        expect(words).to_have_count(1)
    assert shown in rows(page).first.inner_text()
    address = page.url
    other = next(code for code in LANGUAGES if code != person.language)
    person.choose(other)
    person.choose(person.language)
    assert page.url == address
    person.follow(person.button("Save view"))
    page.keyboard.type("My patient")
    person.press("Enter")
    expect(page.locator('[data-view="7"]')).to_contain_text("My patient")
    person.press("1")
    page.wait_for_url(lambda url: typed not in url)
    person.press("7")
    page.wait_for_url(f"**q={typed}*")
    expect(page.locator('[data-view="7"]')).to_have_attribute("aria-current", "page")


def read_the_cases(person: Person) -> None:
    """Two cases of the list, looked at and judged; then back to the list as it was."""
    page = person.page
    with_map = rows(page).filter(has=page.locator(".finding-words.finding"))
    order = [row.get_attribute("data-id") for row in rows(page).all()]
    place, address = order.index(with_map.get_attribute("data-id")), page.url
    person.press("j", "j", "k", *"j" * place)
    expect(with_map).to_be_focused()
    person.press("Enter")
    on_case(page, order[place])
    expect(page.locator("#p-answer .decision")).to_contain_text(person.say("significant finding"))
    page.locator("canvas#film[data-map=ready]").wait_for()
    person.press("h")
    expect(page.locator("#legend")).to_be_visible()
    assert_accessible(page)
    person.press("h", "i")
    expect(page.locator("#legend")).to_be_hidden()
    expect(page.locator('[data-do="invert"]')).to_have_attribute("aria-pressed", "true")
    person.press("d")
    expect(page.locator(".own")).to_contain_text(person.say("You disagree."))
    person.press("u")
    expect(page.locator(".own")).to_have_count(0)
    person.press("a")
    expect(page.locator(".own")).to_contain_text(person.say("You agree."))
    there, back = ("j", "k") if place + 1 < len(order) else ("k", "j")
    person.press(there)
    on_case(page, order[place + (1 if there == "j" else -1)])
    person.press(back)
    on_case(page, order[place])
    person.press("Escape")
    page.wait_for_url(address)
    expect(with_map.locator(".c-state")).to_contain_text(person.say("agreed"))
    assert [row.get_attribute("data-id") for row in rows(page).all()] == order


def keep_the_row_while_a_film_arrives(person: Person, send: Send) -> None:
    """The list is newest first, so that the new study pushes everything below."""
    page = person.page
    live(page)
    person.press("j", "j")
    focused = page.locator("tr[data-id]:focus")
    before, number = focused.bounding_box(), focused.get_attribute("data-id")
    assert before
    send("cr-square-grid", person.language)
    expect(rows(page)).to_have_count(len(FILMS) + 1)
    expect(rows(page).first.locator(".finding-words")).not_to_have_text(person.say("no answer yet"), timeout=30_000)
    assert focused.get_attribute("data-id") == number
    assert focused.bounding_box() == pytest.approx(before, abs=1)


# Alerts are looked for every half minute, and two of these waits are in it.
@pytest.mark.timeout(480)
def test_admins_day(page: Page, language: str, node: Node, send: Send, pacs_folder: Path) -> None:
    person = Person(page, language, Role.ADMIN)
    person.log_in()
    person.follow(person.link("Node"))
    page.wait_for_url("**/admin")
    expect(page.locator(".badges .badge").first).to_be_visible()
    expect(page.locator(".badges .badge.bad")).to_have_count(0)
    assert_accessible(page)
    pause_and_resume_sending(person, node, send, pacs_folder)
    send_again(person, pacs_folder)
    trust_a_caller(person, node)
    try_the_destination(person)
    look_at_models(person)
    change_the_stage(person, node)
    check_a_configuration(person)
    add_a_user(person)
    read_and_verify_the_trail(person)
    person.log_out()


def pause_and_resume_sending(person: Person, node: Node, send: Send, pacs_folder: Path) -> None:
    """Results wait while sending is paused, an alert tells of it, and they leave afterwards."""
    page = person.page
    enter(person, "Queues")
    card = page.locator("form#switch-send")
    person.follow(card.locator("summary"))
    person.press("Tab")
    page.keyboard.type("archive is moved")
    person.press("Enter")
    expect(card).to_contain_text("archive is moved")
    known = len(read_journal(pacs_folder))
    uid = send("cr-square-grid", person.language)
    await_condition(lambda: bool((node.study(uid) or {}).get("decision")), 60, "study concluded")
    enter(person, "Overview")
    expect(page.locator("section.card", has_text="archive is moved")).to_contain_text(person.name)
    see_the_alert(person)
    enter(person, "Queues")
    person.follow(page.locator('nav.tabs a[href$="tab=sending"]'))
    page.wait_for_url("**tab=sending")
    expect(page.locator("tbody tr").first).to_contain_text("pacs")
    assert len(read_journal(pacs_folder)) == known
    person.follow(card.get_by_role("button", name=person.say("Resume"), exact=True))
    expect(page.locator("p.notice")).to_have_text(person.say("Resumed."))
    await_condition(lambda: len(read_journal(pacs_folder)) == known + 2, 60, "both results at the PACS")
    node.await_done()


def see_the_alert(person: Person) -> None:
    """It comes by itself, and tells that somebody knows."""
    page = person.page
    enter(person, "Alerts")
    sentence = person.say(SENTENCES[AlertKind.PAUSED], subject=person.say(STAGES[Stage.SEND]), hours=0)
    alert = page.locator("section.card", has_text=sentence)
    expect(alert).to_be_visible(timeout=60_000)
    person.follow(alert.get_by_role("button"))
    expect(alert).to_contain_text(person.say("seen by %(who)s") % {"who": person.name})


def send_again(person: Person, pacs_folder: Path) -> None:
    """A delivery that is done goes out again, with the same bytes; the alert is over."""
    page, known = person.page, len(read_journal(pacs_folder))
    person.follow(page.locator('nav.tabs a[href$="tab=done"]'))
    page.wait_for_url("**tab=done*")
    delivery = page.locator("tbody tr", has_text="→ pacs").first.get_by_role("checkbox")
    person.tab_to(delivery, "j")
    person.press("x")
    expect(delivery).to_be_checked()
    person.tab_to(person.button("Send again"), "Shift+Tab")
    person.press("Enter")
    expect(page.locator("p.notice")).to_have_text(person.say(DONE["resend"], n=1))
    await_condition(lambda: len(read_journal(pacs_folder)) == known + 2, 60, "both results at the PACS again")
    assert_nothing_doubled(read_journal(pacs_folder))
    enter(person, "Alerts")
    expect(page.locator("p.empty")).to_have_text(person.say("Nothing is wrong."), timeout=60_000)
    expect(page.locator("tbody tr", has_text=person.name)).to_have_count(1)


def trust_a_caller(person: Person, node: Node) -> None:
    """A modality with an unknown title is refused, trusted, let in, and refused again."""
    page, title = person.page, f"ROOM_{person.language.upper()}"
    with pytest.raises(PeerUnreachable):
        call(node, title)
    enter(person, "Callers")
    entry = page.locator("#callers tbody tr", has_text=title).first
    expect(entry).to_contain_text(person.say("denied"))
    person.follow(entry.get_by_role("link", name=person.say("Trust …")))
    expect(page.get_by_label(person.say("AE title"))).to_have_value(title)
    assert_accessible(page)
    expect(page.get_by_label(person.say("Name for lists and logs"))).to_be_focused()
    page.keyboard.type(f"room {person.language}")
    person.press("Tab", "Space")
    person.follow(person.button("Trust it"))
    trusted = page.locator("section tbody tr", has_text=title)
    expect(trusted).to_contain_text(person.name)
    await_condition(lambda: is_let_in(node, title), 60, "the trusted sender is let in")
    expect(page.locator("#callers tbody tr", has_text=title).filter(has_text=person.say("accepted"))).to_have_count(1)
    person.follow(trusted.locator("summary"))
    person.follow(person.button("Deny it from now on"))
    expect(trusted).to_have_count(0)


def call(node: Node, title: str) -> None:
    """C-ECHO under a title."""
    assert node.peer
    with scu.associate(title, node.peer, ()) as association:
        assert association.send_c_echo().Status == scu.SUCCESS


def is_let_in(node: Node, title: str) -> bool:
    try:
        call(node, title)
    except PeerUnreachable:
        return False
    return True


def try_the_destination(person: Person) -> None:
    page = person.page
    enter(person, "Destinations")
    for label, outcome in (("C-ECHO", "answers"), ("Would it take our results?", "takes our results")):
        person.follow(person.button(label))
        expect(page.locator(".chip.clear").get_by_text(person.say(outcome), exact=True)).to_be_visible()
    assert_accessible(page)


def look_at_models(person: Person) -> None:
    """The active one, a candidate with gates and report, and another operating point for it."""
    page = person.page
    enter(person, "Models")
    active = page.locator("tbody tr", has=page.locator(".chip.clear", has_text=person.say("active"))).first
    person.follow(active.get_by_role("link"))
    expect(page.locator("h1 .chip")).to_have_text(person.say("active"))
    assert_accessible(page)
    person.follow(person.link("All models"))
    person.follow(page.get_by_role("link", name=f"Test model {CANDIDATE}", exact=True))
    gates = page.locator("section", has=page.locator("#gates")).locator("tbody tr")
    expect(gates.filter(has_text=person.say("days of silent reading"))).to_contain_text(person.say("not passed"))
    expect(gates.filter(has_text=person.say("expected calibration error"))).to_contain_text(person.say("passed"))
    report = page.frame_locator("iframe.report")
    page.locator("iframe.report").scroll_into_view_if_needed()
    expect(report.locator("p")).to_have_text("figures of the evaluation")
    assert_accessible(page)
    reason = page.locator("form[action$=sign] [name=reason]")
    person.tab_to(reason)
    page.keyboard.type("too early")
    person.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text(person.say("days of silent reading"))
    page.go_back()
    person.tab_to(page.locator("[data-slider]"))
    person.press(*["ArrowRight"] * (1 + list(LANGUAGES).index(person.language)))
    person.follow(person.button("Make a candidate with this operating point"))
    expect(page.locator("h1")).to_contain_text(f"{CANDIDATE}+m")
    expect(page.locator("h1 .chip")).to_have_text(person.say("candidate"))


def change_the_stage(person: Person, node: Node) -> None:
    """Down by one person at once; up by this one and a colleague, who signs on the command line."""
    page = person.page
    enter(person, "Triage policy")
    sign_for(person, "shadow")
    expect(page.locator("[aria-current=step]")).to_have_text(person.say("shadow"))
    assert_accessible(page)
    sign_for(person, "supervised")
    expect(page.locator(".notice")).to_contain_text(person.name)
    expect(page.locator("[aria-current=step]")).to_have_text(person.say("shadow"))
    signed = clearfilm(
        node.config_path, "policy", "stage", "supervised", "--user", f"colleague-{person.language}", "--reason", "seen"
    )
    assert signed.returncode == 0, signed.stderr
    page.reload()
    expect(page.locator("[aria-current=step]")).to_have_text(person.say("supervised"))
    expect(page.locator(".notice")).to_have_count(0)


def sign_for(person: Person, stage: str) -> None:
    """Choose a stage with the arrows, and sign."""
    choice = person.page.locator("select[name=stage]")
    person.tab_to(choice)
    person.press("Home")
    while choice.input_value() != stage:
        before = choice.input_value()
        person.press("ArrowDown")
        assert choice.input_value() != before, f"{stage} is not offered"
    person.press("Tab")
    person.page.keyboard.type("day of the tests")
    person.press("Enter")


def check_a_configuration(person: Person) -> None:
    """What a changed file would do; one with a fault is told so."""
    page = person.page
    enter(person, "Configuration")
    for text, words in (("study: {quiet_seconds: 7}", "valid"), ("studdy: {}", "The node would not start.")):
        field = page.locator("textarea[name=text]")
        if not field.is_visible():
            person.follow(page.locator("details.block > summary"))
        person.tab_to(field)
        person.press("Control+a")
        page.keyboard.type(text)
        person.follow(person.button("Test it"))
        expect(page.locator("section.card").get_by_text(person.say(words), exact=False).first).to_be_visible()
        assert_accessible(page)


def add_a_user(person: Person) -> None:
    page, name = person.page, f"locum-{person.language}"
    enter(person, "Users")
    form = page.locator('form[action="/admin/users/add"]')
    person.tab_to(form.locator("[name=name]"))
    page.keyboard.type(name)
    person.press("Tab", "ArrowDown", "Tab")
    page.keyboard.type("temporary password")
    person.press("Enter")
    expect(page.locator("tbody tr", has_text=name)).to_contain_text(person.say("Radiologist"))


def read_and_verify_the_trail(person: Person) -> None:
    """What was done stands there, and nothing was taken away."""
    page = person.page
    enter(person, "Audit trail")
    person.tab_to(page.locator("[name=actor]"))
    page.keyboard.type(person.name)
    person.press("Enter")
    page.wait_for_url("**actor=*")
    for event in ("alert acknowledged", "sender trusted", "destination tried", "user added"):
        expect(page.locator("tbody tr", has_text=person.say(event)).first).to_be_visible()
    person.follow(person.link("Verify the chain"))
    expect(page.locator("p.notice .chip.clear")).to_have_text(person.say("whole"))
    assert_accessible(page)


def enter(person: Person, room: str) -> None:
    """Go to a room of the console by its link."""
    link = person.page.locator(".console-rooms").get_by_role("link", name=person.say(room), exact=True)
    person.follow(link)
    expect(link).to_have_attribute("aria-current", "page")
    assert_accessible(person.page)


def test_auditors_day(page: Page, language: str) -> None:
    person = Person(page, language, Role.AUDITOR)
    person.log_in()
    page.wait_for_url("**/admin/audit")
    assert_accessible(page)
    search_the_trail(person)
    export_the_trail(person)
    person.follow(person.link("Verify the chain"))
    expect(page.locator("p.notice .chip.clear")).to_have_text(person.say("whole"))
    assert_accessible(page)
    for path in ("/worklist", "/worklist.csv", "/studies/1", "/admin"):
        assert_refused(page, path)
    page.goto("/")
    person.log_out()


def search_the_trail(person: Person) -> None:
    page = person.page
    person.tab_to(page.locator("[name=actor]"))
    page.keyboard.type(person.name)
    person.press("Enter")
    page.wait_for_url(f"**actor={person.name}*")
    found = page.locator("tbody tr")
    expect(found.get_by_text(person.say("logged in"), exact=True)).to_have_count(1)
    expect(found.filter(has_not_text=person.name)).to_have_count(0)


def export_the_trail(person: Person) -> None:
    """What was searched for, as a file."""
    with person.page.expect_download() as started:
        person.follow(person.link("Export CSV"))
    with Path(started.value.path()).open(encoding="utf-8", newline="") as source:
        lines = list(csv.DictReader(source))
    assert {line["actor"] for line in lines} == {person.name}
    assert "audit trail shown" in {line["event"] for line in lines}


def assert_refused(page: Page, path: str) -> None:
    answer = page.goto(path)
    assert answer
    assert answer.status == 403
    body = answer.text()
    assert not [word for name in PATIENTS.values() for word in (name[2], "DAY-") if word in body]


def rows(page: Page) -> Locator:
    return page.locator("tr[data-id]")


def live(page: Page) -> None:
    """Wait until the page listens to the node."""
    page.locator(".live:not(.lost)").wait_for()


def on_case(page: Page, number: str | None) -> None:
    """Wait until this case is shown with its film."""
    page.wait_for_url(f"**/studies/{number}")
    page.locator("canvas#film[data-state=ready]").wait_for()
