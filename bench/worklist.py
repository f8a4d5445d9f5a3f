"""The list's page with 100,000 studies and 30 readers listening: time at the server, memory of the process.

python -m bench.worklist [--studies N]
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

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
PORT = 18480
READERS = 30
ROUNDS = 8
LISTS = (
    *(
        "read=unread",
        "sort=received&order=desc",
        "level=stat&level=high&read=unread",
        "state=failed",
        "state=delivered",
    ),
    *("state=concluded", "finding=significant_finding", "finding=none", "sender=portable", "location=ICU", "sex=F"),
    *("age_from=1&age_to=9", "q=zhangsan", "q=P0000123", "q=nobody", "when=today", "level=limit", "level=later"),
    *("sort=patient", "sort=number", "sort=age&order=desc", "mine=1"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name, ExitStack() as stack:
        folder = Path(name)
        prepare(folder, arguments.studies)
        (folder / "c.yaml").write_text(f"data_folder: {folder}\nworklist: {{port: {PORT}}}\n")
        command = [sys.executable, "-m", "cli.main", "worklist", "--config", str(folder / "c.yaml")]
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        stack.callback(server.terminate)
        client = stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=30))
        log_in(client)
        for _ in range(READERS):
            threading.Thread(target=listen, args=(dict(client.cookies),), daemon=True).start()
        report(client, psutil.Process(server.pid))


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


def log_in(client: httpx2.Client) -> None:
    """Wait for the server, and log in."""
    for _ in range(200):
        try:
            page = client.get("/login").text
            break
        except httpx2.TransportError:
            time.sleep(0.1)
    token = re.findall(r'name="form-token" content="(\w+)"', page)[0]
    answer = client.post("/login", data={"name": "bench", "password": PASSWORD, "form_token": token})
    assert answer.status_code == 303, answer.text


def listen(cookies: dict[str, str]) -> None:
    """One open page."""
    with httpx2.Client(cookies=cookies, timeout=None) as client:
        try:
            with client.stream("GET", f"http://127.0.0.1:{PORT}/events") as stream:
                for _ in stream.iter_lines():
                    pass
        except httpx2.TransportError:
            return


def report(client: httpx2.Client, process: psutil.Process) -> None:
    """Ask for every list in turn, and print."""
    times: dict[str, list[float]] = {address: [] for address in LISTS}
    for _ in range(ROUNDS):
        for address, taken in times.items():
            start = time.perf_counter()
            answer = client.get(f"/worklist?{address}", headers={"accept": "text/html"})
            taken.append((time.perf_counter() - start) * 1000)
            assert answer.status_code == 200
    for address, taken in times.items():
        print(f"{address:40} median {np.median(taken):6.0f} ms   p95 {np.percentile(taken, 95):6.0f} ms")
    together = np.concatenate(list(times.values()))
    print(f"all: median {np.median(together):.0f} ms, p95 {np.percentile(together, 95):.0f} ms")
    print(f"memory of the web process: {process.memory_info().rss / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
