"""Heartbeats, totals and the watcher of changes, on both databases."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from sqlalchemy import text

from db import audit, processes, schema
from db.models import Study
from db.processes import Heartbeat
from db.session import Database
from worklist.events import Watcher


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/clearfilm.sqlite"
    else:
        server = request.getfixturevalue("postgresql_url")
        with closing(Database(server)) as administration, administration._writer.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("DROP DATABASE IF EXISTS beats"))
            connection.execute(text("CREATE DATABASE beats"))
        url = server.rpartition("/")[0] + "/beats"
    with closing(Database(url)) as made:
        schema.prepare(made)
        yield made


def totals(database: Database) -> dict[str, float]:
    with database.read() as session:
        return {name: value for name, _, value in processes.totals(session)}


def test_process_is_seen_while_it_lives(database: Database) -> None:
    with Heartbeat(database, "worker", lambda: {"device": "cpu"}), database.read() as session:
        [found] = processes.seen(session, now=database.now(session))
        assert (found.kind, found.detail, found.is_silent) == ("worker", {"device": "cpu"}, False)
    with database.read() as session:
        assert processes.seen(session, now=database.now(session)) == []


def test_counts_of_one_process_after_the_other_add_up(database: Database) -> None:
    for _ in range(3):
        registry = CollectorRegistry()
        films = Counter("films", "Films.", ["outcome"], registry=registry)
        with Heartbeat(database, "worker", registry=registry):
            films.labels("stored").inc(2)
    assert totals(database) == {"films_total": 6}


def test_counts_from_before_the_first_beat_are_not_added(database: Database) -> None:
    registry = CollectorRegistry()
    films = Counter("films", "Films.", registry=registry)
    films.inc(5)
    with Heartbeat(database, "worker", registry=registry):
        films.inc(1)
    assert totals(database) == {"films_total": 1}


def test_each_change_of_a_study_is_told_once(database: Database) -> None:
    with database.begin() as session:
        now = database.now(session)
        study = Study(study_instance_uid="1.2.3", first_received_at=now, last_received_at=now)
        session.add(study)
        session.flush()
        number = study.id
    watcher = Watcher(database)
    assert watcher.poll() == set()
    for _ in range(2):
        with database.begin() as session:
            audit.record(session, "tried again", actor="test", now=database.now(session), study_id=number)
        assert watcher.poll() == {number}
        assert not watcher.poll()
    watcher.close()
