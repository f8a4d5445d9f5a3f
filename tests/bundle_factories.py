"""Small model bundles: without a network, or with a ResNet152 of random weights."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clearfilm.dicom.preprocessing import PREPROCESSING_ID, preprocessing_hash
from clearfilm.operating import CalibrationScores
from clearfilm.vision.bundle import (
    CALIBRATION,
    CARD,
    DESCRIPTION,
    FEATURES,
    WEIGHTS,
    Calibration,
    Description,
    FeatureGate,
    OperatingPoint,
    TrainingData,
    as_file,
    dump_description,
    write_bundle,
)

if TYPE_CHECKING:
    from torch import Tensor


def description(version: str = "1") -> Description:
    return Description(
        name="Test model",
        version=version,
        note="test data",
        created=date(2026, 1, 1),
        intended_use="tests",
        architecture="resnet152",
        input_edge=224,
        preprocessing_id=PREPROCESSING_ID,
        preprocessing_hash=preprocessing_hash(),
        calibration=Calibration(slope=1, intercept=0, films=10),
        operating_point=OperatingPoint(
            threshold=0.3, sensitivity=0.9, confidence=0.95, abnormal_patients=100, misses=4
        ),
        evidence_threshold=2.0,
        feature_gate=FeatureGate(threshold=1.0, quantile=0.995, margin=1.0),
        training_data=TrainingData(digest="0" * 64, description="none", films={"train": 1}),
        metrics=(),
    )


def write(folder: Path, version: str = "1") -> str:
    """Write a bundle whose weights are no network; its digest."""
    files = {DESCRIPTION: dump_description(description(version)), CARD: b"# Test\n", WEIGHTS: b"", FEATURES: b""}
    return write_bundle(folder, files)


def write_calibrated(folder: Path, version: str) -> str:
    """The same with calibration scores, from which its operating point can be moved; its digest."""
    scores = CalibrationScores(
        scores=tuple((number + 1) / 101 for number in range(100)),
        abnormal=tuple(number >= 40 for number in range(100)),
        patients=tuple(range(100)),
    )
    point = OperatingPoint(threshold=0.3, sensitivity=0.95, confidence=0.95, abnormal_patients=60, misses=0)
    described = description(version).model_copy(update={"operating_point": point})
    files = {
        WEIGHTS: b"weights",
        DESCRIPTION: dump_description(described),
        CARD: b"card",
        FEATURES: b"features",
        CALIBRATION: scores.dump(),
    }
    return write_bundle(folder, files)


def random_weights(seed: int = 0) -> "dict[str, Tensor]":
    """Weights of a ResNet152 whose outputs stay small."""
    import torch
    from torchvision.models import resnet152

    torch.manual_seed(seed)
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


def write_network(folder: Path, weights: "dict[str, Tensor]", described: Description) -> str:
    """Write a bundle that an engine can run; its digest."""
    from clearfilm.vision.unusual import fit_subspace

    subspace = fit_subspace(np.random.default_rng(0).random((20, 2048), dtype=np.float32), 4)
    files = {
        WEIGHTS: as_file(weights),
        FEATURES: as_file(subspace),
        DESCRIPTION: dump_description(described),
        CARD: b"# Random\n",
    }
    return write_bundle(folder, files)
