"""From trained weights to a model bundle: whole, or not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearfilm.config import Training
from clearfilm.dicom.preprocessing import PREPROCESSING_ID, preprocessing_hash
from clearfilm.operating import CalibrationScores
from clearfilm.vision.bundle import (
    CALIBRATION,
    CARD,
    DESCRIPTION,
    FEATURES,
    WEIGHTS,
    Description,
    Metric,
    OperatingPoint,
    TrainingData,
    as_file,
    dump_description,
    write_bundle,
)
from clearfilm.vision.network import as_tensor, build, convert, fold, forward
from training.cache import Store
from training.calibrate import (
    area_metric,
    fewest_abnormal_patients,
    fit_calibration,
    fit_evidence_threshold,
    fit_gate,
    fit_operating_point,
    share_metric,
)
from training.cohort import ABNORMAL, NORMAL, Cohort, describe
from training.progress import Watcher

__all__ = ["BUNDLE", "Lineage", "Outputs", "fewest_abnormal_patients", "read_films", "write_trained_bundle"]

BUNDLE: Final = "bundle"
# Fewer test films than this make figures that should not be quoted.
DEMONSTRATION_FILMS: Final = 1000
_BATCH = 16
_GATE_FILMS = 2000


@dataclass(frozen=True)
class Lineage:
    """Where weights came from and how they were made."""

    origin: str
    mean: float
    std: float
    epochs: int
    best: int
    code_version: str
    when: datetime


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a network says of films, not calibrated: shapes ``(n,)``, ``(n, h, w)`` and ``(n, channels)``."""

    logits: NDArray[np.float64]
    maps: NDArray[np.float32]
    features: NDArray[np.float32]


def write_trained_bundle(
    folder: Path,
    cohort: Cohort,
    store: Store,
    weights: Mapping[str, Tensor],
    settings: Training,
    lineage: Lineage,
    device: torch.device,
    dtype: torch.dtype,
    watcher: Watcher,
) -> str:
    """Calibrate on the patients of "calibrate", measure on those of "test", write.

    Scores come from the network in the form and number type in which the worker runs it.

    Returns
    -------
    str
        The bundle's digest.

    Raises
    ------
    TrainingError
        If the network is no better than chance.
    BundleError, StorageError
        See `clearfilm.vision.bundle.write_bundle`.
    """
    places = {part: cohort.of(part) for part in ("train", "stop", "calibrate", "test", "temporal")}
    sample = places["train"][:: max(1, len(places["train"]) // _GATE_FILMS)]
    read = [*sample, *(place for part in ("stop", "calibrate", "test", "temporal") for place in places[part])]
    outputs = read_films(weights, store, read, lineage.mean, lineage.std, device, dtype, watcher)
    row = {place: number for number, place in enumerate(read)}
    labels = np.array([film.abnormal for film in cohort.films], dtype=np.float32)
    patients = [film.patient for film in cohort.films]

    def rows(wanted: Sequence[int]) -> list[int]:
        return [row[place] for place in wanted]

    held = places["calibrate"]
    calibration = fit_calibration(outputs.logits[rows(held)], labels[held])
    scores = 1 / (1 + np.exp(-(calibration.slope * outputs.logits + calibration.intercept)))
    point = fit_operating_point(
        scores[rows(held)],
        labels[held],
        [patients[place] for place in held],
        settings.sensitivities,
        settings.confidence,
    )
    normal = [place for place in held if labels[place] == 0]
    peaks = outputs.maps[rows(normal)].max(axis=(1, 2)) * np.float32(calibration.slope)
    gate, subspace = fit_gate(
        outputs.features[rows(sample)], outputs.features[rows([*places["stop"], *held])], settings.gate_margin
    )
    demonstration = len(places["test"]) < DEMONSTRATION_FILMS
    description = Description(
        name="Clearfilm",
        version=f"{lineage.when:%Y-%m-%d}.{cohort.digest[:8]}",
        note="demonstration data" if demonstration else "trained at this site",
        created=lineage.when.date(),
        intended_use=(
            "Sorting of adult frontal chest radiographs before they are read; every film is still read. Not a medical "
            "device."
        ),
        architecture="resnet152",
        input_edge=settings.edge,
        input_mean=lineage.mean,
        input_std=lineage.std,
        preprocessing_id=PREPROCESSING_ID,
        preprocessing_hash=preprocessing_hash(),
        calibration=calibration,
        operating_point=point,
        evidence_threshold=fit_evidence_threshold(peaks, settings.contour_share),
        feature_gate=gate,
        training_data=TrainingData(
            digest=cohort.digest,
            description=f"cohort from {cohort.manifest.source}, split by {_SCHEMES[cohort.manifest.scheme]}",
            films={part: len(films) for part, films in places.items() if films},
            split_key=cohort.manifest.split_key if cohort.manifest.scheme == "patient" else None,
        ),
        metrics=tuple(_measure(cohort, places["test"], scores[rows(places["test"])], labels, point)),
    )
    return write_bundle(
        folder,
        {
            WEIGHTS: as_file({name: tensor.contiguous() for name, tensor in weights.items()}),
            DESCRIPTION: dump_description(description),
            CARD: _card(description, cohort, settings, lineage).encode(),
            FEATURES: as_file(subspace),
            CALIBRATION: _calibration_scores(scores[rows(held)], labels[held], [patients[place] for place in held]),
        },
    )


def _calibration_scores(scores: NDArray[np.float64], labels: NDArray[np.float32], patients: Sequence[str]) -> bytes:
    """Patients as numbers in order of appearance: who they are stays in the cohort."""
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    return CalibrationScores(
        tuple(float(score) for score in scores),
        tuple(bool(label) for label in labels),
        tuple(numbers[patient] for patient in patients),
    ).dump()


_SCHEMES = {"patient": "patient", "paper": "film at random (patients are in several parts)"}


def read_films(
    weights: Mapping[str, Tensor],
    store: Store,
    places: Sequence[int],
    mean: float,
    std: float,
    device: torch.device,
    dtype: torch.dtype,
    watcher: Watcher,
) -> Outputs:
    """Read films with the network as the worker runs it."""
    network = fold(build({name: tensor.float().clone() for name, tensor in weights.items()}), mean=mean, std=std)
    convert(network, device=device, dtype=dtype)
    logits, maps, features = [], [], []
    watcher.begin("reading films with the trained network", len(places))
    for at in range(0, len(places), _BATCH):
        chosen = places[at : at + _BATCH]
        with torch.inference_mode():
            films = as_tensor(np.stack([store.film(p) for p in chosen]), mean=mean, device=device, dtype=dtype)
            result = forward(network, films)
        logits.append(result.logits.double().cpu().numpy())
        maps.append(result.maps.cpu().numpy())
        features.append(result.features.cpu().numpy())
        for _ in chosen:
            watcher.advance()
    return Outputs(np.concatenate(logits), np.concatenate(maps), np.concatenate(features))


def _measure(
    cohort: Cohort,
    test: Sequence[int],
    scores: NDArray[np.float64],
    labels: NDArray[np.float32],
    point: OperatingPoint | None,
) -> list[Metric]:
    """Figures on the test patients; a group without films of both labels has no AUC."""
    films = [cohort.films[place] for place in test]
    truth = labels[list(test)]
    groups = {"AUC, all": [True] * len(films)}
    groups |= {f"AUC, view {view}": [film.view == view for film in films] for view in ("PA", "AP")}
    groups |= {f"AUC, {name}": [film.sex == sex for film in films] for name, sex in (("women", "F"), ("men", "M"))}
    metrics = []
    for name, chosen in groups.items():
        inside = np.flatnonzero(chosen)
        if len(inside) and 0 < truth[inside].sum() < len(inside):
            owners = [films[place].patient for place in inside]
            metrics.append(area_metric(name, truth[inside], scores[inside], owners))
    if point is not None and 0 < truth.sum() < len(truth):
        below, patients = scores < point.threshold, np.array([film.patient for film in films])
        ill, well = truth == 1, truth == 0
        metrics.append(
            share_metric("sensitivity at the operating point", ~below[ill], patients[ill].tolist(), normal=False)
        )
        metrics.append(
            share_metric("specificity at the operating point", below[well], patients[well].tolist(), normal=True)
        )
    return metrics


def _card(description: Description, cohort: Cohort, settings: Training, lineage: Lineage) -> str:
    point = description.operating_point
    if point is None:
        guarantee = 'None: too few abnormal calibration patients. The model never says "no significant finding".'
    else:
        guarantee = (
            f"Probability {point.threshold:.4f}. Exact binomial rule on {point.abnormal_patients} abnormal calibration "
            f"patients, one film each, {point.misses} of them below: with {point.confidence:.0%} confidence at least "
            f"{point.sensitivity:.1%} of abnormal patients like these are found."
        )
    parts = "\n".join(
        f"| {part} | {row['patients']} | {row[NORMAL]} | {row[ABNORMAL]} |" for part, row in cohort.counts().items()
    )
    figures = "\n".join(
        f"| {m.name} | {m.value:.3f} | {m.low:.3f} to {m.high:.3f} | {m.normal} / {m.abnormal} |"
        for m in description.metrics
    )
    values = ", ".join(f"{key} {value}" for key, value in settings.model_dump(mode="json").items())
    return f"""\
# {description.name} {description.version}

**{description.note[0].upper() + description.note[1:]}. Not a medical device.** {description.intended_use}

ResNet152, one logit, {settings.edge} x {settings.edge} grey input, preprocessing `{PREPROCESSING_ID}`. Started from
{lineage.origin}; learned: {settings.train.replace("_", " ")}. {lineage.epochs} epochs, shipped is the average of epoch
{lineage.best}. Made {lineage.when:%Y-%m-%d} by {lineage.code_version}.

## Films

Cohort `{cohort.digest}`, {description.training_data.description}. Left out: {describe(cohort.manifest.excluded)}.

| part | patients | normal films | abnormal films |
| --- | --- | --- | --- |
{parts}

Calibration and thresholds come from the patients of calibrate only; the test patients were used for the figures below
and nothing else.

## Figures

Test patients, 95 % intervals (AUC: bootstrap over patients; proportions: Clopper-Pearson,
films of one patient for less).

| figure | value | interval | normal / abnormal films |
| --- | --- | --- | --- |
{figures}

## Operating point

{guarantee}

## Settings

{values}
"""
