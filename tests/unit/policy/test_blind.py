"""The blind share: right size, repeatable, not to be guessed."""

from pathlib import Path

import pytest

from clearfilm.errors import StartupError
from clearfilm.policy.blind import KEY_FILE, in_share, read_key

STUDIES = [f"1.2.{number}" for number in range(20_000)]


def test_share_has_its_size_and_a_larger_one_holds_the_smaller() -> None:
    small, large = ({uid for uid in STUDIES if in_share(uid, b"key", share)} for share in (0.03, 0.1))
    assert len(small) / len(STUDIES) == pytest.approx(0.03, abs=0.005)
    assert small < large
    assert not any(in_share(uid, b"key", 0) for uid in STUDIES)


def test_another_key_draws_others() -> None:
    drawn = [{uid for uid in STUDIES if in_share(uid, key, 0.03)} for key in (b"key", b"other")]
    assert len(drawn[0] & drawn[1]) < 0.1 * len(drawn[0])


def test_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    key = read_key(tmp_path)
    assert read_key(tmp_path) == key
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o077 == 0


def test_empty_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).touch()
    with pytest.raises(StartupError, match="backup"):
        read_key(tmp_path)
