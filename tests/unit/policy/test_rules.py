"""The policy as properties: what is never lowered, for how long anything is, and that the document says the same."""

import dataclasses
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clearfilm.policy.rules import (
    GUARDS,
    RULES,
    Facts,
    Level,
    Placement,
    earlier_reports,
    longest_wait,
    place,
    returned,
    stepped_down,
)
from clearfilm.policy.settings import Location, Policy
from clearfilm.policy.stages import Stage
from clearfilm.triage import Decision

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "triage-policy.md"
POLICY = Policy(
    locations=(Location(name="clinic", words=("clinic",), maximum_wait_minutes=30),), released_senders=("x",)
)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLEAR = Facts(Decision.NO_SIGNIFICANT_FINDING, films=2, films_below=2, waiting_since=NOW, age_years=50)
# Each makes one guard speak about a study that is clear otherwise.
GUARDED: list[tuple[str, dict[str, Any]]] = [
    ("not-clear", {"decision": Decision.SIGNIFICANT_FINDING}),
    ("not-clear", {"decision": Decision.NOT_ANALYSED}),
    ("not-clear", {"films_below": 1}),
    ("not-clear", {"films": 0, "films_below": 0}),
    ("ordered-urgent", {"ordered_urgent": True}),
    ("ordered-unknown", {"ordered_priorities": ("as fast as you can",)}),
    ("ordered-unknown", {"ordered_priorities": ("ROUTINE", "tonight")}),
    ("guarded-location", {"location": "Medical ICU"}),
    ("guarded-location", {"descriptions": "CHEST PORTABLE"}),
    ("red-flag", {"request": "haemoptysis"}),
    ("red-flag", {"request": "外伤后胸痛"}),
    ("red-flag", {"descriptions": "chest, line check"}),
    ("under-age", {"age_years": 17.9}),
    ("under-age", {"age_years": float("nan")}),
    ("age-unknown", {"age_years": None}),
    ("prior-report", {"prior_labels": ("no_finding", "finding")}),
    ("prior-report", {"prior_labels": ("unlabelled",)}),
    ("prior-report", {"prior_labels": ("indeterminate",)}),
    ("new-device", {"new_devices": ("Acme at x",)}),
]
stages = st.sampled_from(Stage)
texts = st.one_of(st.just(""), st.text(max_size=20), st.sampled_from(["clinic", "ward 3", "ICU", "trauma", "复查"]))
facts = st.builds(
    Facts,
    decision=st.sampled_from(Decision),
    films=st.integers(0, 3),
    films_below=st.integers(0, 3),
    waiting_since=st.integers(0, 600).map(lambda minutes: NOW - timedelta(minutes=minutes)),
    ordered_priorities=st.lists(st.sampled_from(["", "ROUTINE", "STAT", "LOW", "?"]), max_size=2).map(tuple),
    ordered_urgent=st.booleans(),
    location=texts,
    descriptions=texts,
    request=texts,
    age_years=st.one_of(st.none(), st.floats(0, 120)),
    prior_labels=st.lists(st.sampled_from(["no_finding", "finding", "indeterminate", "unlabelled"]), max_size=2).map(
        tuple
    ),
    new_devices=st.sampled_from([(), ("new",)]),
    in_blind_share=st.booleans(),
)
clear_facts = facts.map(
    lambda found: dataclasses.replace(
        CLEAR, waiting_since=found.waiting_since, in_blind_share=found.in_blind_share, location="clinic"
    )
)


def is_lowered(placement: Placement) -> bool:
    return placement.tagged or placement.shown or placement.suggests_later or placement.level is Level.LATER


def test_a_clear_study_is_tagged_and_read_later_when_the_policy_is_active() -> None:
    placement = place(CLEAR, POLICY, Stage.ACTIVE, now=NOW)
    assert (placement.level, placement.tagged, placement.shown) == (Level.LATER, True, True)
    assert placement.returns_at == NOW + timedelta(minutes=240)
    assert [reason.rule for reason in placement.reasons] == ["clear", "stage-active", "maximum-wait"]


def test_every_guard_has_an_example() -> None:
    assert {rule for rule, _ in GUARDED} == {guard.id for guard in GUARDS}


@pytest.mark.parametrize(("rule", "changes"), GUARDED)
@given(found=clear_facts, stage=stages)
def test_the_never_lowered_is_never_lowered(rule: str, changes: dict[str, Any], found: Facts, stage: Stage) -> None:
    placement = place(dataclasses.replace(found, **changes), POLICY, stage, now=NOW)
    assert not is_lowered(placement)
    assert rule in {reason.rule for reason in placement.reasons}
    assert placement.level is (Level.PRIORITY if changes.get("ordered_urgent") else Level.USUAL)


@given(facts, stages)
def test_only_a_wholly_clear_study_is_ever_tagged(found: Facts, stage: Stage) -> None:
    placement = place(found, POLICY, stage, now=NOW)
    if is_lowered(placement):
        assert found.decision is Decision.NO_SIGNIFICANT_FINDING
        assert found.films_below == found.films > 0
        assert not found.ordered_urgent
    assert placement.reasons
    assert {reason.rule for reason in placement.reasons} <= {rule.id for rule in RULES}


@given(facts, stages)
def test_a_priority_that_a_human_ordered_is_never_lowered(found: Facts, stage: Stage) -> None:
    ordered = dataclasses.replace(found, ordered_urgent=True)
    assert place(ordered, POLICY, stage, now=NOW).level is Level.PRIORITY
    assert place(found, POLICY, stage, now=NOW).level.rank <= Level.LATER.rank


@given(clear_facts, stages, st.integers(0, 600))
def test_nothing_is_later_beyond_its_longest_wait(found: Facts, stage: Stage, minutes: int) -> None:
    moment = NOW + timedelta(minutes=minutes)
    placement = returned(place(found, POLICY, stage, now=NOW), now=moment)
    if placement.level is Level.LATER:
        assert stage is Stage.ACTIVE
        assert moment < found.waiting_since + longest_wait(found, POLICY)[0]
        assert placement.returns_at == found.waiting_since + timedelta(minutes=30)
    else:
        assert placement.returns_at is None


def test_a_returned_study_says_why_and_is_not_suggested_any_more() -> None:
    later = place(CLEAR, POLICY, Stage.ACTIVE, now=NOW)
    back = returned(later, now=NOW + timedelta(minutes=240))
    assert (later.level, back.level, back.tagged) == (Level.LATER, Level.USUAL, True)
    assert back.reasons[-1].rule == "maximum-wait"
    assert not back.suggests_later
    assert returned(back, now=NOW + timedelta(days=1)) == back


@given(clear_facts)
def test_the_blind_share_looks_like_a_study_without_an_answer(found: Facts) -> None:
    blind = dataclasses.replace(found, in_blind_share=True)
    for stage in (Stage.SUPERVISED, Stage.ACTIVE):
        placement = place(blind, POLICY, stage, now=NOW)
        assert (placement.level, placement.tagged, placement.shown) == (Level.USUAL, True, False)
        assert placement.blind
        assert placement.withheld
        assert not placement.suggests_later


@given(facts)
def test_nothing_is_shown_or_moved_below_supervised_and_nothing_moved_below_active(found: Facts) -> None:
    for stage in (Stage.OFF, Stage.SHADOW):
        placement = place(found, POLICY, stage, now=NOW)
        assert placement.withheld
        assert not placement.shown
        assert placement.level is not Level.LATER
    assert place(found, POLICY, Stage.SUPERVISED, now=NOW).level is not Level.LATER
    assert not place(found, POLICY, Stage.OFF, now=NOW).tagged


@given(facts)
def test_shadow_tags_what_supervised_shows_or_keeps_blind(found: Facts) -> None:
    silent, open_ = (place(found, POLICY, stage, now=NOW) for stage in (Stage.SHADOW, Stage.SUPERVISED))
    assert silent.tagged == open_.tagged == (open_.shown or open_.blind)


@given(facts, stages, st.sampled_from([Stage.OFF, Stage.SHADOW, Stage.SUPERVISED]))
def test_stepping_down_puts_everything_back(found: Facts, before: Stage, after: Stage) -> None:
    placement = stepped_down(place(found, POLICY, before, now=NOW), after)
    assert placement.level is not Level.LATER
    assert placement.returns_at is None
    assert after.shows or not placement.shown


def test_of_several_places_the_shortest_wait_counts() -> None:
    places = (
        Location(name="a", words=("screening",), maximum_wait_minutes=600),
        Location(name="b", words=("体检",), maximum_wait_minutes=90),
    )
    policy = Policy(locations=places)
    wait, name = longest_wait(dataclasses.replace(CLEAR, location="Screening 体检中心"), policy)
    assert (wait, name) == (timedelta(minutes=90), "b")
    assert longest_wait(CLEAR, policy) == (timedelta(minutes=240), "")


@pytest.mark.parametrize("ordered", ["", "ROUTINE", "routine ", "Ｒ", "LOW", "MEDIUM", "常规"])
def test_routine_orders_may_be_tagged(ordered: str) -> None:
    assert place(dataclasses.replace(CLEAR, ordered_priorities=("", ordered)), POLICY, Stage.SHADOW, now=NOW).tagged


def test_a_site_names_its_own_words_for_routine() -> None:
    ordered = dataclasses.replace(CLEAR, ordered_priorities=("P3",))
    assert not place(ordered, POLICY, Stage.SHADOW, now=NOW).tagged
    assert place(ordered, Policy(routine_orders=("p3",)), Stage.SHADOW, now=NOW).tagged


def test_version_changes_with_the_settings_and_not_with_the_first_stage() -> None:
    assert Policy().version == Policy(stage="off").version
    assert len({Policy().version, Policy(blind_share=0).version, Policy(red_flags=("x",)).version}) == 3


@pytest.mark.parametrize("settings", [{"stage": "active"}, {"red_flags": ["*"]}, {"guarded_locations": [" - "]}])
def test_settings_that_would_bypass_or_match_everything_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Policy(**settings)


def test_the_document_lists_the_rules_of_the_code() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("## The rules")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
    assert listed == [(rule.id, rule.words) for rule in RULES]


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "1 earlier report that is not without finding"), (2, "2 earlier reports that are not without finding")],
)
def test_earlier_reports_are_counted(number: int, words: str) -> None:
    assert earlier_reports(number) == words
