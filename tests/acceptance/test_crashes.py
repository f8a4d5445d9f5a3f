"""Invariants I1 to I4: kill -9 anywhere loses nothing and doubles nothing."""

from pathlib import Path

import pytest

from clearfilm.crashpoints import NAMES
from clearfilm.triage import Decision
from tests.acceptance.films import fresh_film, sample
from tests.acceptance.nodes import Node, assert_nothing_doubled, await_condition, read_journal

REPORTS = {decision.series_description for decision in Decision}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize("point", NAMES)
def test_i1_i3_a_crash_loses_nothing_and_doubles_nothing(
    node: Node, pacs_folder: Path, crash_folder: Path, tmp_path: Path, point: str
) -> None:
    film, study = fresh_film(tmp_path, sample("cr-mass"))
    (crash_folder / point).touch()
    node.send_until_stored(film)
    await_condition(lambda: not (crash_folder / point).exists(), 60, f"the process died at {point}")
    await_condition(lambda: _is_delivered(node, study), 120, "study delivered after the crash")

    journal = [entry for entry in read_journal(pacs_folder) if entry["study"] == study]
    assert_nothing_doubled(journal)
    reports = {entry["instance"] for entry in journal if entry["description"] in REPORTS}
    assert len(reports) == 1
    assert len({entry["instance"] for entry in journal}) == 2
    found = node.study(study)
    assert found
    assert found["revision"] == 1
    assert len(found["films"]) == 1


def test_i1_every_process_killed_at_once_loses_nothing(node: Node, pacs_folder: Path, tmp_path: Path) -> None:
    films = [fresh_film(tmp_path, sample("cr-mass")) for _ in range(4)]
    for path, _ in films:
        node.send_until_stored(path)
    node.kill_all()
    node.start()
    for _, study in films:
        await_condition(lambda study=study: _is_delivered(node, study), 120, "study delivered after the restart")  # type: ignore[misc]
    journal = read_journal(pacs_folder)
    assert_nothing_doubled(journal)
    for _, study in films:
        assert len({entry["instance"] for entry in journal if entry["study"] == study}) == 2


def _is_delivered(node: Node, study: str) -> bool:
    found = node.study(study)
    if not found or found["state"] != "concluded":
        return False
    states = [delivery["state"] for result in found["results"] for delivery in result["deliveries"]]
    return bool(states) and "waiting" not in states
