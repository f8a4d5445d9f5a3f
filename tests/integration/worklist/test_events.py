"""Live updates: what changed arrives within a moment, in the order of writing, and after a lost connection too."""

import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue

import httpx2
from playwright.sync_api import Page, expect
from sqlalchemy import delete

from db import audit
from db.accounts import Login, Role
from tests.integration.worklist.conftest import Site, enter, seed_study

ROUNDS = 15


class Stream:
    """Events of one connection, with the time of their arrival."""

    def __init__(self) -> None:
        self.events: Queue[tuple[str, str, float]] = Queue()

    def next(self, name: str, seconds: float = 20) -> tuple[str, float]:
        """Data and time of the next event of this name."""
        deadline = time.monotonic() + seconds
        while True:
            found, data, at = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            if found == name:
                return data, at

    def nothing(self, name: str, seconds: float) -> bool:
        try:
            self.next(name, seconds)
        except Empty:
            return True
        return False


@contextmanager
def listening(client: httpx2.Client, **headers: str) -> Iterator[Stream]:
    stream = Stream()
    with client.stream("GET", "/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")

        def read() -> None:
            name = data = ""
            try:
                for line in answer.iter_lines():
                    if line.startswith("event:"):
                        name = line[6:].strip()
                    elif line.startswith("data:"):
                        data = line[5:].strip()
                    elif not line and name:
                        stream.events.put((name, data, time.monotonic()))
                        name = data = ""
            except (httpx2.HTTPError, httpx2.StreamError, ValueError, OSError):
                return

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        yield stream


def change(site: Site, study_id: int) -> float:
    """Something happens to a study; when it was committed."""
    with site.database.begin() as session:
        audit.record(session, "tried again", actor="test", now=site.database.now(session), study_id=study_id)
    return time.monotonic()


def test_change_of_a_study_arrives_within_a_moment(site: Site) -> None:
    study_id = seed_study(site.database)
    with listening(site.client(Role.READER)) as stream:
        stream.next("hello")
        delays = []
        for _ in range(ROUNDS):
            committed = change(site, study_id)
            data, at = stream.next("studies")
            assert json.loads(data) == [study_id]
            delays.append(at - committed)
    assert statistics.median(delays) < 0.3


def test_everybody_who_listens_hears_it(site: Site) -> None:
    study_id = seed_study(site.database)
    with listening(site.client(Role.READER)) as one, listening(site.client(Role.ADMIN)) as other:
        one.next("hello")
        other.next("hello")
        change(site, study_id)
        assert json.loads(one.next("studies")[0]) == json.loads(other.next("studies")[0]) == [study_id]


def test_auditor_hears_nothing_of_studies(site: Site) -> None:
    study_id = seed_study(site.database)
    with listening(site.client(Role.AUDITOR)) as stream:
        stream.next("hello")
        change(site, study_id)
        assert stream.nothing("studies", 1.0)


def test_page_that_was_cut_off_loads_everything_anew(site: Site) -> None:
    with listening(site.client(Role.READER), **{"last-event-id": "7"}) as stream:
        stream.next("refresh")


def test_stream_needs_a_login(site: Site) -> None:
    assert site.client().get("/events", headers={"accept": "text/event-stream"}).status_code == 401


def test_open_page_shows_that_it_is_live_and_leaves_when_the_login_ends(site: Site, browser_page: Page) -> None:
    site.server.services.hub.heartbeat_seconds = 0.3
    enter(browser_page, Role.READER)
    expect(browser_page.get_by_text("live", exact=True)).to_be_visible()
    expect(browser_page.get_by_text("Connection lost")).to_be_hidden()
    with site.database.begin() as session:
        session.execute(delete(Login))
    expect(browser_page.get_by_text("Your login has ended.")).to_be_visible(timeout=20_000)
    assert "next=%2Fworklist" in browser_page.url
