"""Where the cells of a map look."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearfilm.vision.network import build, forward
from clearfilm.vision.placing import CENTRE, STRIDE, nearest_cell, peak
from tests.bundle_factories import random_weights


def test_network_looks_as_far_left_of_a_cell_as_right_of_it() -> None:
    """Cells 0 to 7 look around pixels 0, 32, …, 224 of 225: turned round, the film gives the map turned round."""
    weights = {key: value + value.flip(-1, -2) if value.ndim == 4 else value for key, value in random_weights().items()}
    network = build(weights).double()
    film = torch.rand(1, 1, 225, 225, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps, turned = forward(network, film).maps, forward(network, film.flip(-1, -2)).maps
    assert maps.shape == (1, 8, 8)
    assert maps.std() > 0
    assert torch.allclose(turned, maps.flip(-1, -2), rtol=1e-6)


def test_peak_lies_in_the_middle_of_what_its_cell_looks_at() -> None:
    evidence = np.zeros((7, 7), np.float32)
    evidence[2, 5] = 1
    assert peak(evidence) == pytest.approx((64.5 / 224, 160.5 / 224))


@given(st.integers(0, 6), st.integers(0, 6), st.integers(-15, 15), st.integers(-15, 15))
def test_nearest_cell_is_the_one_whose_middle_is_nearest(row: int, column: int, down: int, right: int) -> None:
    edge = 7 * STRIDE
    place = [max(0.0, (STRIDE * cell + 0.5 + off) / edge) for cell, off in ((row, down), (column, right))]
    assert nearest_cell(place[0], place[1], (7, 7)) == (row, column)


def test_right_and_lower_edge_belong_to_the_last_cell() -> None:
    assert nearest_cell(0.9999, 1, (7, 7)) == (6, 6)
    assert CENTRE < 0.1
