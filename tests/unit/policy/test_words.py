"""Words of the lists in received text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearfilm.policy.settings import Policy
from clearfilm.policy.words import first_found

RED_FLAGS = Policy().red_flags


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Haemoptysis for 3 days", "haemoptysis"),
        ("HÆMOPTYSIS? hemoptysis", "hemoptysis"),
        ("患者咯血三天", "咯血"),
        ("咯 血", "咯血"),
        ("post-op day 2", "post op"),
        ("s/p postop", "postop"),
        ("Post_Operative check", "post operative"),
        ("NG-tube position", "tube position"),
        ("check N\uff27 Tube", "NG tube"),  # full width
        ("known TUMOURS", "tumour*"),
        ("met\u00adastases", "metasta*"),  # soft hyphen
        ("右肺癌术后复查", "癌"),
        ("外傷", "外傷"),
        ("no trauma", "trauma"),  # negation does not count
    ],
)
def test_red_flags_are_found_however_they_are_written(text: str, word: str) -> None:
    assert first_found(text, RED_FLAGS) == word


@pytest.mark.parametrize(
    "text", ["", "routine check", "stable", "massive amounts of paperwork", "gastbericht", "outburst", "体检", "胸片"]
)
def test_parts_of_other_words_are_not_red_flags(text: str) -> None:
    assert first_found(text, RED_FLAGS) is None


@pytest.mark.parametrize("text", ["ICU病房", "急诊科", "A&E", "portable/bedside", "MOBILE", "Emergency Dept."])
def test_guarded_places_are_found_beside_other_scripts(text: str) -> None:
    assert first_found(text, Policy().guarded_locations)


@given(st.text(alphabet=" .,;:()?\n\t", max_size=6), st.sampled_from(RED_FLAGS), st.text(" .,;()\n", max_size=6))
def test_every_word_of_the_list_finds_itself_between_borders(before: str, word: str, after: str) -> None:
    assert first_found(before + word.removesuffix("*").upper() + after, [word]) == word


@given(st.text(max_size=200))
def test_any_text_can_be_searched(text: str) -> None:
    assert first_found(text, RED_FLAGS) in (None, *RED_FLAGS)
