"""The split: keyed, by patient, for ever."""

from collections import Counter

import pytest

from training.split import key_id, part_of, person, pseudonym

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


@pytest.mark.parametrize("spelling", ["ab 12", " AB 12 ", "Ab\u300012", "AB\t12\0", "\uff21B  12"])
def test_a_patient_is_one_person_however_the_id_is_spelt(spelling: str) -> None:
    assert person(spelling) == "AB 12"
    assert person("AB 13") != "AB 12"


def test_pseudonyms_hide_the_identity_and_differ_by_purpose() -> None:
    name = pseudonym("Jane", KEY)
    assert name == pseudonym("Jane", KEY)
    assert len({name, pseudonym("Jane", KEY, purpose="export"), pseudonym("Jane", b"other"), "Jane"}) == 4
    assert KEY.hex() not in key_id(KEY)
