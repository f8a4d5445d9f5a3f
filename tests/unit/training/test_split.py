"""The split: keyed, by patient, for ever."""

from collections import Counter
from pathlib import Path

import pytest

from clearfilm.errors import TrainingError
from training.split import KEY_FILE, key_id, part_of, pseudonym, read_key, read_key_file

KEY = b"a key"


def test_shares_are_70_10_10_10() -> None:
    counts = Counter(part_of(f"patient {number}", KEY) for number in range(20_000))
    shares = {part: round(count / 20_000, 2) for part, count in counts.items()}
    assert shares == {"train": 0.7, "stop": 0.1, "calibrate": 0.1, "test": 0.1}


def test_a_patient_keeps_its_part_whatever_is_added() -> None:
    assert [part_of(f"P{number}", KEY) for number in range(6)] == [part_of(f"P{number}", KEY) for number in range(6)]


def test_another_key_makes_another_split() -> None:
    patients = [f"P{number}" for number in range(200)]
    assert [part_of(p, KEY) for p in patients] != [part_of(p, b"another") for p in patients]


def test_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    key = read_key(tmp_path)
    assert read_key(tmp_path) == key
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o077 == 0


def test_empty_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).touch()
    with pytest.raises(TrainingError, match="backup"):
        read_key_file(tmp_path / KEY_FILE)


def test_pseudonyms_hide_the_identity_and_differ_by_purpose() -> None:
    name = pseudonym("Jane", KEY)
    assert name == pseudonym("Jane", KEY)
    assert len({name, pseudonym("Jane", KEY, purpose="export"), pseudonym("Jane", b"other"), "Jane"}) == 4
    assert KEY.hex() not in key_id(KEY)
