"""A bundle with a real ResNet152 of random weights."""

import numpy as np
import pytest
import torch

from clearfilm.vision.bundle import Bundle, load_bundle
from tests.bundle_factories import description, random_weights, write_network

EDGE = 64


@pytest.fixture(scope="session")
def weights() -> dict[str, torch.Tensor]:
    return random_weights()


@pytest.fixture(scope="session")
def bundle(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("models") / "random"
    described = description().model_copy(
        update={
            "input_edge": EDGE,
            "calibration": description().calibration.model_copy(update={"slope": 0.7, "intercept": -0.2}),
        }
    )
    write_network(folder, weights, described)
    return load_bundle(folder)


@pytest.fixture(scope="session")
def films() -> np.ndarray:
    """Three films of blobs: shape (3, EDGE, EDGE), uint8."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    return coarse.repeat(EDGE // 8, axis=1).repeat(EDGE // 8, axis=2)
