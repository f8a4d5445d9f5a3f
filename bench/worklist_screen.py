"""From the event to the screen: an open list in Chromium, 100,000 studies, 30 readers with the list open.

    python -m bench.worklist_screen [--studies N] [--events N] [--out FILE]

Each event is a real one: a film is taken in, and the worker's own code concludes its study. Time runs from the commit
of that transaction (from its beginning: writing to the disk counts) until the browser has painted the row.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import numpy as np
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import Connection, event

from bench.worklist import READERS, listen, prepare, serving
from clearfilm.config import Config, Study
from db import conclusions
from db.session import Database
from tests.conftest import CHROMIUM, FLAGS
from tests.integration.worklist.films import SAMPLES, Archive
from worker.conclude import Concluder
from worker.leases import Leases
from worker.store import Store

LONGEST_MS = 30_000  # an event that is later counts as lost, and ends the measurement
# Notes when a row has been painted for the first time, and when with its answer.
_WATCH = """() => {
    window.painted = {};
    const note = (key) => {
        if (key in painted) return;
        painted[key] = null;
        requestAnimationFrame(() => {  // before the paint; the message comes after it
            const channel = new MessageChannel();
            channel.port1.onmessage = () => { painted[key] = performance.timeOrigin + performance.now(); };
            channel.port2.postMessage(0);
        });
    };
    const look = () => {
        for (const row of document.querySelectorAll("tr[data-id]")) {
            note(`${row.dataset.id} row`);
            if (row.querySelector(".finding-words.finding")) note(`${row.dataset.id} answer`);
        }
    };
    look();
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description="From the event to the screen.")
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=120)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-worklist-") as name:
        prepare(Path(name), arguments.studies)
        seen = measure(Path(name), arguments.events)
    figures = {name: _summary(values) for name, values in seen.items()}
    text = json.dumps({**figures, "readers": READERS, "load_before": before, "load": os.getloadavg()[0]}, indent=2)
    sys.stdout.write(text + "\n")
    if arguments.out:
        arguments.out.write_text(text + "\n")


def measure(folder: Path, events: int) -> dict[str, list[float]]:
    """Milliseconds of each event: the arrival of a study, and its answer."""
    seen: dict[str, list[float]] = {"arrival": [], "answer": []}
    config = Config(data_folder=folder, study=Study(quiet_seconds=0))
    with closing(Database(config.database_url)) as database:
        archive = Archive(database, config)
        archive.activate_model()
        commits = watch_commits(database)
        with serving(folder) as (client, _), concluding(archive), browsing(client) as page:
            listen(client, READERS)
            for _ in range(events):
                study_id, film_id = archive.receive(SAMPLES / "07-dx-effusion.dcm")
                seen["arrival"].append(painted(page, study_id, "row") - commits["INSERT INTO studies"])
                archive.read(film_id, 0.9)
                with database.begin() as session:
                    conclusions.request(session, study_id, quiet=timedelta(0), now=datetime.now(UTC))
                seen["answer"].append(painted(page, study_id, "answer") - commits["UPDATE studies SET"])
    return seen


@contextmanager
def concluding(archive: Archive) -> Iterator[None]:
    """The worker's loop."""
    stop = threading.Event()
    with Leases(archive.database) as leases:
        concluder = Concluder(archive.config, archive.database, Store(archive.config.data_folder), leases)
        thread = threading.Thread(target=concluder.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextmanager
def browsing(client: httpx2.Client) -> Iterator[Page]:
    """The list in the order of arrival, open and live."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(FLAGS), chromium_sandbox=os.geteuid() != 0
        )
        url = str(client.base_url)
        context = browser.new_context(base_url=url, viewport={"width": 1920, "height": 1200})
        context.add_cookies([{"name": name, "value": value, "url": url} for name, value in client.cookies.items()])
        page = context.new_page()
        page.goto("/worklist?sort=received&order=desc")
        page.locator(".live:not(.lost)").wait_for()
        page.evaluate(_WATCH)
        yield page
        browser.close()


def painted(page: Page, study_id: int, what: str) -> float:
    """When it was, in milliseconds since 1970 by the machine's clock, which is the rows' clock too."""
    found = page.wait_for_function("(key) => painted[key]", arg=f"{study_id} {what}", timeout=LONGEST_MS)
    return float(found.json_value())


def watch_commits(database: Database) -> dict[str, float]:
    """When a transaction with such a statement was committed last, in milliseconds since 1970."""
    commits: dict[str, float] = {}

    def note(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        words = " ".join(statement.split()[:3])
        if words == "INSERT INTO studies" or (words == "UPDATE studies SET" and "concluded_at" in statement):
            connection.info["notable"] = words

    def commit(connection: Connection) -> None:
        words = connection.info.pop("notable", None)
        if words:
            commits[words] = time.time() * 1000

    event.listen(database._writer, "before_cursor_execute", note)
    event.listen(database._writer, "commit", commit)
    return commits


def _summary(values: list[float]) -> dict[str, float]:
    return {
        "events": len(values),
        "median_ms": round(float(np.median(values))),
        "p95_ms": round(float(np.percentile(values, 95))),
        "worst_ms": round(max(values)),
    }


if __name__ == "__main__":
    main()
