"""A small model bundle for tests that need no network."""

from datetime import date
from pathlib import Path

from clearfilm.dicom.pixels import PREPROCESSING_ID, preprocessing_hash
from clearfilm.vision.bundle import (
    CARD,
    DESCRIPTION,
    FEATURES,
    WEIGHTS,
    Calibration,
    Description,
    FeatureGate,
    OperatingPoint,
    TrainingData,
    dump_description,
    write_bundle,
)


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
