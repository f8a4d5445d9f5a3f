"""Where the operating point could be: bounds, order, and what cannot be read."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from clearfilm.errors import BundleError
from clearfilm.operating import CalibrationScores, choices, sensitivity_bound


@pytest.mark.parametrize("misses", [0, 1, 4])
@pytest.mark.parametrize("patients", [30, 299])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bound_is_that_of_clopper_and_pearson(misses: int, patients: int, confidence: float) -> None:
    exact = beta.ppf(1 - confidence, patients - misses, misses + 1)
    assert sensitivity_bound(misses, patients, confidence) == pytest.approx(math.floor(exact * 1e4) / 1e4, abs=1e-9)


def scores(*films: tuple[float, bool, int]) -> CalibrationScores:
    return CalibrationScores(*(tuple(part) for part in zip(*films, strict=True)))  # type: ignore[arg-type]


def test_first_abnormal_film_counts_for_its_patient() -> None:
    abnormal = [(0.5 + number / 100, True, number) for number in range(40)]
    again = [(0.01, True, 0)]
    clear = [(0.2, False, 99), (0.505, False, 98)]
    found = choices(scores(*abnormal, *again, *clear), 0.95)
    assert found[0].threshold == 0.5
    assert (found[0].misses, found[0].patients, found[0].ruled_out) == (0, 40, 0.5)
    assert found[1].ruled_out == 1
    assert found[1].ruled_out_of(1000, 0.5) == pytest.approx(500 + 500 / 40)
    assert found[1].missed_of(1000, 0.5) == pytest.approx(12.5)
    assert found[1].missed_at_most(1000, 0.5) > 12.5


@given(st.lists(st.tuples(st.floats(0, 1, allow_subnormal=False), st.booleans(), st.integers(0, 50)), max_size=120))
def test_more_misses_never_promise_more(films: list[tuple[float, bool, int]]) -> None:
    found = choices(scores(*films), 0.95) if films else choices(CalibrationScores((), (), ()), 0.95)
    for careful, bold in itertools.pairwise(found):
        assert careful.threshold < bold.threshold
        assert careful.sensitivity >= bold.sensitivity
        assert careful.ruled_out <= bold.ruled_out


def test_scores_survive_their_file() -> None:
    kept = scores((0.25, True, 0), (0.125, False, 1))
    assert CalibrationScores.load(kept.dump()) == kept


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"scores": [2], "abnormal": [1], "patients": [0]}', b'{"scores": [0.5], "abnormal": []}']
)
def test_other_content_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        CalibrationScores.load(content)
