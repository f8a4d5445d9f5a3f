import numpy as np
import pytest

from clearfilm.errors import BundleError
from clearfilm.vision.unusual import distances, fit_subspace


@pytest.fixture
def known() -> np.ndarray:
    """Forty feature vectors near a plane, of differing lengths."""
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(2, 50))
    vectors = 5 + rng.normal(size=(40, 2)) @ plane + 0.01 * rng.normal(size=(40, 50))
    return (vectors * rng.uniform(0.5, 2, (40, 1))).astype(np.float32)


def test_known_films_are_near_and_others_far(known: np.ndarray) -> None:
    subspace = fit_subspace(known[:30], 2)
    others = np.random.default_rng(1).random((10, 50), dtype=np.float32)
    assert distances(known[30:], subspace).max() * 5 < distances(others, subspace).min()


def test_brightness_of_the_features_does_not_matter(known: np.ndarray) -> None:
    subspace = fit_subspace(known, 2)
    np.testing.assert_allclose(distances(known * 3, subspace), distances(known, subspace), atol=1e-5)


def test_film_without_any_feature_is_far(known: np.ndarray) -> None:
    subspace = fit_subspace(known, 2)
    assert distances(np.zeros((1, 50), np.float32), subspace)[0] > 0.5


@pytest.mark.parametrize("subspace", [{}, {"centre": np.zeros(7), "basis": np.zeros((2, 7))}])
def test_subspace_of_other_features_is_refused(known: np.ndarray, subspace: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError):
        distances(known, subspace)
