"""Why a study is where it is, in the words of the page."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clearfilm.policy import rules
from clearfilm.policy.rules import Facts, place
from clearfilm.policy.settings import Policy
from clearfilm.policy.stages import Stage
from clearfilm.triage import Decision
from db import placements
from db.models import Study, StudyState
from db.session import Database
from worklist.templates import Templates
from worklist.timeline import Entry, _places

POLICY = Policy(maximum_wait_minutes=30)
WORDS = Templates()


class Reader:
    """The part of a page that makes sentences."""

    def __init__(self, language: str) -> None:
        self._language = language

    def say(self, message: str, **values: object) -> str:
        return WORDS.translate(self._language, message, **values)


@pytest.fixture
def clear(database: Database) -> tuple[Database, int, Facts]:
    """A study that is concluded, with the facts about it."""
    with database.begin() as session:
        now = database.now(session)
        study = Study(
            study_instance_uid="1.2.3",
            state=StudyState.CONCLUDED,
            revision=1,
            decision=Decision.NO_SIGNIFICANT_FINDING,
            first_received_at=now,
            last_received_at=now,
        )
        session.add(study)
        session.flush()
        number = study.id
    return database, number, Facts(Decision.NO_SIGNIFICANT_FINDING, 1, 1, now, age_years=50)


def conclude(database: Database, number: int, facts: Facts) -> None:
    with database.begin() as session:
        now = database.now(session)
        placement = place(facts, POLICY, Stage.ACTIVE, now=now)
        placements.record(session, session.get_one(Study, number), placement, None, now=now)


def told(database: Database, number: int, language: str = "en") -> list[tuple[str, str]]:
    with database.read() as session:
        found = SimpleNamespace(study=session.get_one(Study, number))
        entries: list[Entry] = list(_places(cast("Any", Reader(language)), session, cast("Any", found)))
    return [(entry.words, entry.detail) for entry in entries]


def test_a_guard_says_which_word_spoke(clear: tuple[Database, int, Facts]) -> None:
    database, number, facts = clear
    conclude(database, number, Facts(**(vars(facts) | {"request": "fall, ?TRAUMA"})))
    ((words, detail),) = told(database, number)
    assert words == "At its usual place"
    assert detail.startswith("the request holds a warning word: trauma; ")
    assert told(database, number, "zh")[0][1].count("：trauma") == 1


def test_a_study_that_has_waited_for_long_enough_says_so_and_nothing_else(clear: tuple[Database, int, Facts]) -> None:
    database, number, facts = clear
    conclude(database, number, facts)
    with database.begin() as session:
        assert placements.return_overdue(session, now=facts.waiting_since + timedelta(minutes=31)) == [number]
    first, second = told(database, number)
    assert first[0] == "To be read later, until its longest wait is over"
    assert first[1].endswith("after 30 minutes at the latest it is back at its usual place")
    assert second == ("Back at its usual place", "it has waited for as long as it may")


def test_a_reader_s_word_is_the_only_reason_for_what_it_did(clear: tuple[Database, int, Facts]) -> None:
    database, number, facts = clear
    conclude(database, number, facts)
    with database.begin() as session:
        now = database.now(session)
        placements.disagree(session, number, now=now)
        study = session.get_one(Study, number)
        study.revision = 2
        corrected = rules.disagreed(place(facts, POLICY, Stage.ACTIVE, now=now))
        placements.record(session, study, corrected, None, now=now)
    assert told(database, number)[1:] == [
        ("Back at its usual place", "a reader disagreed with the answer"),
        ("At its usual place", "a reader disagreed with the answer"),
    ]
