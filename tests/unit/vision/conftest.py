"""A bundle with a real ResNet152 of random weights."""

import numpy as np
import pytest
import torch
from torchvision.models import resnet152

from clearfilm.vision.bundle import (
    CARD,
    DESCRIPTION,
    FEATURES,
    WEIGHTS,
    Bundle,
    as_file,
    dump_description,
    load_bundle,
    write_bundle,
)
from clearfilm.vision.unusual import fit_subspace
from tests.bundle_factories import description

EDGE = 64


@pytest.fixture(scope="session")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = resnet152(num_classes=1)
    for name, tensor in network.state_dict().items():
        if name.endswith("bn3.weight"):
            tensor.fill_(0.2)  # keeps the sum of 50 untrained blocks small
        elif name.endswith(("bias", "running_mean")):
            tensor.uniform_(-0.1, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    state = {key: tensor for key, tensor in network.state_dict().items() if "num_batches" not in key}
    state["fc.weight"] = torch.randn(1, 2048) * 0.05 + 0.02  # some evidence for as well as against
    return {**state, "conv1.weight": state["conv1.weight"].sum(dim=1, keepdim=True)}


@pytest.fixture(scope="session")
def bundle(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("models") / "random"
    described = description().model_copy(
        update={
            "input_edge": EDGE,
            "calibration": description().calibration.model_copy(update={"slope": 0.7, "intercept": -0.2}),
        }
    )
    subspace = fit_subspace(np.random.default_rng(0).random((20, 2048), dtype=np.float32), 4)
    files = {
        WEIGHTS: as_file(weights),
        FEATURES: as_file(subspace),
        DESCRIPTION: dump_description(described),
        CARD: b"# Random\n",
    }
    write_bundle(folder, files)
    return load_bundle(folder)


@pytest.fixture(scope="session")
def films() -> np.ndarray:
    """Three films of blobs: shape (3, EDGE, EDGE), uint8."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    return coarse.repeat(EDGE // 8, axis=1).repeat(EDGE // 8, axis=2)
