"""Days of radiologist and auditor at a running node that films come to: by keyboard alone, in both languages."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from clearfilm.triage import Decision
from db.accounts import Role
from tests.acceptance.films import fresh_film, sample
from tests.acceptance.nodes import Node
from tests.accessibility import assert_accessible
from tests.integration.commands import clearfilm
from worklist.templates import LANGUAGES, Templates

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PASSWORD = "correct horse battery"
# A patient for each language: the name as sent, what a reader types, what the list shows.
PATIENTS = {"en": ("Weaver^Ada", "weaver", "Weaver"), "zh": ("=周^丽", "zhouli", "周")}
FILMS = ("cr-square-grid", "cr-pneumothorax", "child")
MOST_TABS = 120
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

    def say(self, message: str, **values: object) -> str:
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
    node = Node(tmp_path_factory.mktemp("days"), pacs, settings={"policy.blind_share": 0})
    node.start()
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
    expect(found.filter(has_text="logged in")).to_have_count(1)
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
