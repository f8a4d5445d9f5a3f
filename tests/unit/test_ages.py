"""The age that lists show."""

import pytest

from clearfilm.ages import age_years


@pytest.mark.parametrize(
    ("age", "birth", "study", "years"),
    [
        ("045Y", "19000101", "20260301", 45.0),
        ("018M", None, None, 1.5),
        ("002W", None, None, 0.038),
        ("", "19800615", "20260614", 45.0),
        ("", "19800615", "20260615", 46.0),
        ("", "1980.06.15", "20260615", 46.0),
        ("", "20250301", "20260301", 0.999),
    ],
)
def test_age_is_stated_or_counted(age: str, birth: str | None, study: str | None, years: float) -> None:
    assert age_years(age, birth, study) == pytest.approx(years, abs=1e-3)


@pytest.mark.parametrize(
    ("age", "birth", "study"),
    [("", None, "20260301"), ("", "19801332", "20260301"), ("", "20270101", "20260301"), ("999Y", None, None)],
)
def test_what_makes_no_sense_is_no_age(age: str, birth: str | None, study: str) -> None:
    assert age_years(age, birth, study) is None
