"""The list's page with 100,000 studies and 30 readers listening: time at the server, memory of the process.

python -m bench.worklist [--studies N] [--rounds N] [--out FILE]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil

from bench.worklist_studies import fill
from clearfilm.config import Config
from clearfilm.policy.stages import Stage
from db import accounts, schema
from db.accounts import Role
from db.policy_tables import PolicyStep
from db.session import Database
from worklist import passwords

PASSWORD = "a long enough word"
READERS = 30
FIRST = "read=unread"
LISTS = (
    *(FIRST, "sort=received&order=desc", "level=stat&level=high&read=unread", "state=failed", "state=delivered"),
    *("state=concluded", "finding=significant_finding", "finding=none", "sender=portable", "location=ICU", "sex=F"),
    *("age_from=1&age_to=9", "q=zhangsan", "q=P0000123", "q=nobody", "when=today", "level=limit", "level=later"),
    *("sort=patient", "sort=number", "sort=age&order=desc", "mine=1"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Lists at the server.")
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-worklist-") as name:
        prepare(Path(name), arguments.studies)
        with serving(Path(name)) as (client, process):
            first = milliseconds(client, FIRST)
            listen(client, READERS)
            figures = measure(client, arguments.rounds)
            figures |= {"first_page_ms": round(first), "memory_mb": round(process.memory_info().rss / 1e6)}
    figures["load"] = os.getloadavg()[0]
    text = json.dumps(figures, indent=2)
    sys.stdout.write(text + "\n")
    if arguments.out:
        arguments.out.write_text(text + "\n")


def prepare(folder: Path, studies: int) -> None:
    """A full database in the active stage, with one reader."""
    database = Database(Config(data_folder=folder).database_url)
    schema.prepare(database)
    now = datetime.now(UTC)
    fill(database, studies, now=now)
    with database.begin() as session:
        session.add(PolicyStep(at=now, stage=Stage.ACTIVE, actor="bench", reason="bench", detail={}))
        accounts.add_user(session, "bench", Role.RADIOLOGIST, passwords.hash_password(PASSWORD, name="bench"), now=now)
    database.checkpoint()
    database.close()


@contextmanager
def serving(folder: Path) -> Iterator[tuple[httpx2.Client, psutil.Process]]:
    """The web pages as a process on a free port; a client that is logged in, and the process."""
    (folder / "c.yaml").write_text(f"data_folder: {folder}\nworklist: {{port: 0}}\n")
    command = [sys.executable, "-m", "cli.main", "worklist", "--config", str(folder / "c.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            [url] = re.findall(r"^ready: (http://\S+)/$", server.stdout.readline())
            with httpx2.Client(base_url=url, timeout=30) as client:
                _log_in(client)
                yield client, psutil.Process(server.pid)
        finally:
            server.terminate()


def _log_in(client: httpx2.Client) -> None:
    token = re.findall(r'name="form-token" content="(\w+)"', client.get("/login").text)[0]
    answer = client.post("/login", data={"name": "bench", "password": PASSWORD, "form_token": token})
    assert answer.status_code == 303, answer.text


def listen(client: httpx2.Client, readers: int) -> None:
    """So many open lists: each asks for the rows that changed, as `list.js` does, and for counts at most every 2 s."""
    for _ in range(readers):
        threading.Thread(target=_read, args=(str(client.base_url), dict(client.cookies)), daemon=True).start()


def _read(url: str, cookies: dict[str, str]) -> None:
    counted = 0.0
    with httpx2.Client(base_url=url, cookies=cookies, timeout=None) as client:
        try:
            with client.stream("GET", "/events") as stream:
                event = ""
                for line in stream.iter_lines():
                    event = line.removeprefix("event: ") if line.startswith("event: ") else event
                    if not line.startswith("data: ") or event != "studies":
                        continue
                    numbers = ",".join(map(str, json.loads(line.removeprefix("data: "))))
                    client.get(f"/worklist/changes?sort=received&order=desc&ids={numbers}")
                    if time.monotonic() - counted > 2:
                        counted = time.monotonic()
                        client.get("/worklist/counts?sort=received&order=desc")
        except httpx2.TransportError:
            return  # the server ends before its readers


def milliseconds(client: httpx2.Client, address: str) -> float:
    """One whole page."""
    start = time.perf_counter()
    answer = client.get(f"/worklist?{address}", headers={"accept": "text/html"})
    assert answer.status_code == 200
    return (time.perf_counter() - start) * 1000


def measure(client: httpx2.Client, rounds: int) -> dict[str, Any]:
    """Ask for every list in turn."""
    times: dict[str, list[float]] = {address: [] for address in LISTS}
    for _ in range(rounds):
        for address, taken in times.items():
            taken.append(milliseconds(client, address))
    return {
        "lists": {address: _summary(taken) for address, taken in times.items()},
        "all": _summary(np.concatenate(list(times.values())).tolist()),
    }


def _summary(taken: list[float]) -> dict[str, int]:
    return {"median_ms": round(float(np.median(taken))), "p95_ms": round(float(np.percentile(taken, 95)))}


if __name__ == "__main__":
    main()
