"""What was received is shown harmlessly, and times in the viewer's zone."""

import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import STRINGS
from worklist.page import safe_path
from worklist.templates import Templates, local_time, shown, zone


@given(st.text(max_size=400))
def test_nothing_invisible_is_shown_and_the_length_is_bounded(text: str) -> None:
    result = shown(text)
    assert not [c for c in result if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert len(result) <= 200 * len("‹U+10FFFF›") + 1


def test_ordinary_names_stay_as_they_are() -> None:
    assert shown("王^小明") == "王^小明"
    assert shown("O'Brien^Ána") == "O'Brien^Ána"
    assert shown(None) == ""


@pytest.mark.parametrize("text", STRINGS[:-1])
def test_templates_escape(text: str) -> None:
    page = Templates().render("notice.html", "en", {"words": text})
    inside = page.removeprefix('<p class="notice" role="alert">').removesuffix("</p>").removesuffix("</p>\n")
    assert not set(inside) & set("<>\"'")


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("/worklist?state=open&sort=wait", "/worklist?state=open&sort=wait"),
        ("//evil.invalid/", "/"),
        ("/\\evil.invalid", "/"),
        ("https://evil.invalid/", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        ("", "/"),
        (None, "/"),
    ],
)
def test_way_back_never_leaves_the_site(path: str | None, safe: str) -> None:
    assert safe_path(path) == safe


def test_times_are_those_of_the_viewers_clock() -> None:
    moment = datetime(2026, 1, 31, 16, 5, tzinfo=UTC)
    assert local_time(moment, zone("Asia/Shanghai")) == "2026-02-01 00:05"


@pytest.mark.parametrize("name", [None, "", "Nowhere/Atall", "../../etc/passwd", "/etc/passwd", "a\0b"])
def test_zone_that_does_not_exist_is_utc(name: str | None) -> None:
    assert zone(name).key == "UTC"
