"""Who may change the stage: up by two people, one stage at a time; down by anybody."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearfilm.errors import PolicyError
from clearfilm.policy.stages import SIGNATURE_LIFETIME, Signature, Stage, Standing, step, withdraw

NOW = datetime(2026, 3, 1, tzinfo=UTC)
requests = st.lists(
    st.tuples(st.sampled_from(Stage), st.sampled_from(["Ann", "ann ", "Ａnn", "Bo", " bo"]), st.integers(0, 20)),
    max_size=30,
)


def signature(user: str = "Ann", days: float = 0, reason: str = "because") -> Signature:
    return Signature(user, reason, NOW + timedelta(days=days))


@given(requests)
def test_a_step_up_needs_two_people_within_the_time_and_leaves_no_stage_out(
    asked: list[tuple[Stage, str, int]],
) -> None:
    standing, days = Standing(Stage.OFF), 0
    signed: list[tuple[Stage, str, int]] = []
    for wanted, user, pause in asked:
        days += pause
        before = standing.stage
        try:
            standing = step(standing, wanted, signature(user, days))
        except PolicyError:
            continue
        if standing.stage.rank > before.rank:
            assert standing.stage is wanted
            assert standing.stage.rank == before.rank + 1
            stage, first, at = signed[-1]
            assert stage is wanted
            assert (first.strip()[0] in "Bb") is not (user.strip()[0] in "Bb")
            assert days - at <= SIGNATURE_LIFETIME.days
            assert standing.proposal is None
        signed.append((wanted, user, days))


@given(st.sampled_from(Stage), st.sampled_from(Stage))
def test_a_step_down_is_made_at_once_by_one(stage: Stage, wanted: Stage) -> None:
    if wanted.rank < stage.rank:
        assert step(Standing(stage), wanted, signature(), alarm="too much missed") == Standing(wanted)


def test_a_third_stage_asked_for_replaces_the_proposal() -> None:
    proposed = step(Standing(Stage.SUPERVISED), Stage.ACTIVE, signature())
    assert proposed.stage is Stage.SUPERVISED
    down = step(proposed, Stage.SHADOW, signature("Bo"))
    assert down == Standing(Stage.SHADOW)
    with pytest.raises(PolicyError, match="next stage is supervised"):
        step(down, Stage.ACTIVE, signature("Bo"))


@pytest.mark.parametrize("user", ["Ann", "Bo"])
def test_a_proposal_is_withdrawn_by_one_whoever_it_is(user: str) -> None:
    proposed = step(Standing(Stage.SHADOW), Stage.SUPERVISED, signature("Ann"))
    gone = withdraw(proposed, Stage.SUPERVISED, signature(user))
    assert gone == Standing(Stage.SHADOW)
    # What was withdrawn is no first signature any more.
    assert step(gone, Stage.SUPERVISED, signature("Bo")).stage is Stage.SHADOW


@pytest.mark.parametrize("standing", [Standing(Stage.SHADOW), step(Standing(Stage.OFF), Stage.SHADOW, signature())])
def test_only_the_step_that_waits_can_be_withdrawn(standing: Standing) -> None:
    with pytest.raises(PolicyError, match="no step to supervised waits"):
        withdraw(standing, Stage.SUPERVISED, signature())


def test_withdrawing_needs_a_reason() -> None:
    proposed = step(Standing(Stage.SHADOW), Stage.SUPERVISED, signature())
    with pytest.raises(PolicyError, match="needed"):
        withdraw(proposed, Stage.SUPERVISED, signature(reason=" "))


def test_while_the_alarm_stands_nothing_is_shown() -> None:
    with pytest.raises(PolicyError, match="alarm stands: 9 of 10"):
        step(Standing(Stage.SHADOW), Stage.SUPERVISED, signature(), alarm="9 of 10")
    assert step(Standing(Stage.OFF), Stage.SHADOW, signature(), alarm="9 of 10").proposal


@pytest.mark.parametrize(("user", "reason"), [("", "x"), (" ", "x"), ("Ann", ""), ("Ann", "  ")])
def test_a_signature_has_a_user_and_a_reason(user: str, reason: str) -> None:
    with pytest.raises(PolicyError, match="needed"):
        step(Standing(Stage.ACTIVE), Stage.OFF, signature(user, reason=reason))


def test_the_stage_in_force_cannot_be_asked_for() -> None:
    with pytest.raises(PolicyError, match="already"):
        step(Standing(Stage.ACTIVE), Stage.ACTIVE, signature())
