"""The blind share: right size, repeatable, not to be guessed."""

import pytest

from clearfilm.policy.blind import in_share

STUDIES = [f"1.2.{number}" for number in range(20_000)]


def test_share_has_its_size_and_a_larger_one_holds_the_smaller() -> None:
    small, large = ({uid for uid in STUDIES if in_share(uid, b"key", share)} for share in (0.03, 0.1))
    assert len(small) / len(STUDIES) == pytest.approx(0.03, abs=0.005)
    assert small < large
    assert not any(in_share(uid, b"key", 0) for uid in STUDIES)


def test_another_key_draws_others() -> None:
    drawn = [{uid for uid in STUDIES if in_share(uid, key, 0.03)} for key in (b"key", b"other")]
    assert len(drawn[0] & drawn[1]) < 0.1 * len(drawn[0])
