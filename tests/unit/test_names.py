"""How names are read and found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearfilm.names import MOST_TERMS, fold, person_name, search_key, search_terms


def found(query: str, name: str, *numbers: str) -> bool:
    key = search_key(name, *numbers)
    return all(term in key for term in search_terms(query))


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("zhangsan", "Zhang^San=张^三"),
        ("San ZHANG", "Zhang^San=张^三"),
        ("张三", "Zhang^San=张^三"),
        ("张", "张^三"),
        ("zhangsan", "张^三"),
        ("zs", "张^三"),
        ("shantianfang", "单^田芳"),
        ("dantianfang", "单^田芳"),
        ("ouyang", "欧阳^娜娜"),
        ("muller", "Müller^Jörg"),
        ("MÜLLER", "Muller^Jorg"),
        ("ｚｈａｎｇ", "Zhang^San"),
        ("やまだ", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("김희중", "Hong^Gildong=김^희중"),
    ],
)
def test_a_name_is_found_as_people_type_it(query: str, name: str) -> None:
    assert found(query, name)


def test_another_name_is_not_found() -> None:
    assert not found("lisi", "Zhang^San=张^三")
    assert not found("zhang si", "Zhang^San=张^三")


def test_numbers_are_found_by_any_part_of_them() -> None:
    assert found("p-10", "Zhang^San", "P-1024", "ACC7")
    assert found("acc7", "Zhang^San", "P-1024", "ACC7")


def test_groups_of_a_name_are_told_apart() -> None:
    name = person_name("Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert (name.alphabetic, name.ideographic, name.phonetic) == ("Yamada Tarou", "山田太郎", "やまだ たろう")
    assert person_name("张^三").ideographic == "张三"
    assert person_name(None).alphabetic == ""


def test_invisible_characters_neither_hide_nor_find() -> None:
    assert found("zhang", "Zh\u200bang^San")
    assert search_terms("\u202e\x00") == []


def test_terms_are_bounded() -> None:
    assert len(search_terms("a " * 1000)) == MOST_TERMS


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(max_size=64), st.text(max_size=16))
def test_a_key_holds_no_control_characters_and_finds_its_number(name: str, number: str) -> None:
    key = search_key(name, number)
    assert all(letter.isprintable() or letter == "\n" or letter.isspace() for letter in key)
    assert all(term in key for term in search_terms(number))


@given(st.text(alphabet="王张李赵单曾解仇查重行长", min_size=1, max_size=4))
def test_pinyin_of_every_first_reading_finds_the_name(characters: str) -> None:
    from pypinyin import Style, pinyin

    first = "".join(options[0] for options in pinyin(characters, style=Style.NORMAL, heteronym=True))
    assert found(first, characters)
