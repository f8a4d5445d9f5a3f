"""Claim and finish with 1,000 and with 1,000,000 waiting jobs, side by side in one run.

python -m bench.claims [--out FILE]
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from db import queue, schema
from db.models import Instance, Job, JobKind, Study
from db.session import Database

SIZES = (1_000, 1_000_000)
ROUNDS = 3_000
CHUNK = 50_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        databases = {size: prepared(Path(folder) / f"{size}.sqlite", size) for size in SIZES}
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(ROUNDS):
            for size, database in databases.items():  # interleaved, so that both see the same machine
                times[size].append(claim_and_finish(database))
        for database in databases.values():
            database.close()
    figures = {str(size): summary(values) for size, values in times.items()}
    ratio = figures[str(SIZES[1])]["p99_ms"] / figures[str(SIZES[0])]["p99_ms"]
    print(f"{'waiting jobs':>14} {'median ms':>10} {'p99 ms':>8}")
    for size, row in figures.items():
        print(f"{int(size):>14,} {row['median_ms']:>10.2f} {row['p99_ms']:>8.2f}")
    print(f"p99, large against small: {ratio:.2f} x")
    if arguments.out:
        arguments.out.write_text(json.dumps({"figures": figures, "p99_ratio": ratio}, indent=2) + "\n")


def prepared(path: Path, size: int) -> Database:
    """A database with `size` waiting films of all priorities."""
    database = Database(f"sqlite:///{path}")
    schema.prepare(database)
    chance = random.Random(1)
    with database.begin() as session:
        session.add(Study(id=1, study_instance_uid="1.2", first_received_at=NOW, last_received_at=NOW))
        session.flush()
        session.add(_instance())
        session.flush()
    for start in range(0, size, CHUNK):
        rows: list[dict[str, Any]] = [
            {
                "kind": JobKind.ANALYSE,
                "study_id": 1,
                "instance_id": 1,
                "priority": chance.choices([0, 1, 2], [90, 8, 2])[0],
                "run_after": NOW + timedelta(seconds=number),
                "created_at": NOW,
            }
            for number in range(start, min(start + CHUNK, size))
        ]
        with database.begin() as session:
            session.execute(insert(Job), rows)
    database.checkpoint()
    return database


def claim_and_finish(database: Database) -> float:
    """Seconds for one job; it is put back so that as many wait as before."""
    later = NOW + timedelta(days=365)
    start = time.perf_counter()
    with database.begin() as session:
        job = queue.claim(session, JobKind.ANALYSE, owner="bench", now=later)
    assert job is not None
    with database.begin() as session:
        queue.finish(session, job, now=later)
    seconds = time.perf_counter() - start
    with database.begin() as session:
        queue.add(session, JobKind.ANALYSE, study_id=1, instance_id=1, now=later)
    return seconds


def summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"median_ms": statistics.median(ordered) * 1e3, "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3}


def _instance() -> Instance:
    return Instance(
        id=1,
        study_id=1,
        sop_instance_uid="1.3",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest="0" * 64,
        size=1,
        path="films/a.dcm",
        sender="bench",
        calling_ae_title="BENCH",
        received_at=NOW,
    )


if __name__ == "__main__":
    main()
