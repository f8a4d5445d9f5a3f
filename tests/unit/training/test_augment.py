"""Augmentation."""

import numpy as np

from training.augment import augment, shrink, wide_edge


def film(edge: int = 126) -> np.ndarray:
    rows, columns = np.mgrid[:edge, :edge]
    return ((columns * 200) // edge + rows // 4).astype(np.uint8)


def test_same_generator_gives_the_same_film() -> None:
    one, other = (augment(film(), 112, np.random.default_rng(5)) for _ in range(2))
    assert one.dtype == np.uint8
    assert one.shape == (112, 112)
    assert np.array_equal(one, other)
    assert not np.array_equal(one, augment(film(), 112, np.random.default_rng(6)))


def test_films_are_never_mirrored() -> None:
    for seed in range(200):
        changed = augment(film(), 112, np.random.default_rng(seed)).astype(float)
        assert changed[:, 70:100].mean() > changed[:, 12:42].mean()
        assert changed[70:100].mean() > changed[12:42].mean() - 30


def test_changes_are_mild_and_keep_the_film_in_place() -> None:
    plain = shrink(film(), 112).astype(float)
    mean = np.mean([augment(film(), 112, np.random.default_rng(seed)) for seed in range(300)], axis=0)
    assert np.abs(mean - plain)[16:-16, 16:-16].mean() < 12


def test_stored_films_are_larger_than_the_input() -> None:
    assert wide_edge(224) == 252
