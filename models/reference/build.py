"""Makes the reference model: last stage and linear layer trained on NIH films, on top of the base weights.

    python models/reference/build.py --films FOLDER --scratch FOLDER [--cross-validate] [--keep-head]

FOLDER of films: `cohort.csv` (file, patient_id, view, sex, age, label …), `qc_flags.csv`, optionally
`external_hannover.csv`. Needs the extras `worker`, `reference-model` and `test`, about 3 GB of scratch and half
an hour on two cores. Writes the recipe beside this script. Choices were made by cross-validation on the patients
of train and stop; the test patients are read once, for the card.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import hmac
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import torch
from card import render_card
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.stats import beta, binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ResNet

from clearfilm.dicom.pixels import network_input
from clearfilm.dicom.preprocessing import PREPROCESSING_ID, preprocessing_hash
from clearfilm.vision.assemble import HEAD, RECIPE, Recipe, joined_weights
from clearfilm.vision.base_weights import load_base_weights
from clearfilm.vision.bundle import (
    CARD,
    DESCRIPTION,
    FEATURES,
    WEIGHTS,
    Calibration,
    Description,
    FeatureGate,
    Metric,
    OperatingPoint,
    TrainingData,
    as_file,
    dump_description,
    files_digest,
)
from clearfilm.vision.network import (
    as_tensor,
    build,
    choose_device,
    choose_dtype,
    convert,
    fold,
    forward,
    stages,
)
from clearfilm.vision.unusual import distances, fit_subspace

EDGE = 224
VERSION = "1.0"
SPLIT_KEY = b"clearfilm-reference-1"
PARTS = (("train", 0.7), ("stop", 0.8), ("calibrate", 0.9), ("test", 1.0))
# Flags of qc_flags.csv that spoil a film for learning and calibration; the test keeps such films.
SPOILT = frozenset({"inverted_greyscale", "upside_down", "off_centre", "label_suspect"})
VARIANTS = 6  # the film itself and five mild augmentations
SENSITIVITY, CONFIDENCE = 0.90, 0.95
CONTOUR_SHARE = 0.05  # of calibration normals may show a contour
GATE_COMPONENTS, GATE_QUANTILE, GATE_MARGIN = 8, 0.995, 1.15
BOOTSTRAP = 2000


@dataclass(frozen=True)
class Settings:
    """What cross-validation chose."""

    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 3e-5
    head_learning_rate: float = 1e-4
    weight_decay: float = 0.05
    warm_up_steps: int = 20
    dropout: float = 0.3
    mixup: float = 0.4  # of third-stage maps; both parameters of the beta distribution
    average_decay: float = 0.99  # exponential moving average of the weights, per step
    start_share: float = 0.5  # of the starting weights in the result
    probe_strength: float = 1e-3  # C of the logistic regression that the linear layer starts from
    runs: int = 3  # runs from the same start whose weights are averaged


@dataclass(frozen=True, eq=False)
class Cohort:
    """The films of `cohort.csv`, in its order."""

    rows: list[dict[str, str]]
    displays: list[NDArray[np.uint8]]
    labels: NDArray[np.float32]  # 1 = abnormal
    patients: NDArray[np.str_]
    parts: NDArray[np.str_]  # of the patient, or "spoilt"
    digest: str

    def of(self, *parts: str) -> NDArray[np.int64]:
        """Places of the films of some parts."""
        return np.flatnonzero(np.isin(self.parts, parts))


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the finished network says about films, not calibrated."""

    logits: NDArray[np.float64]
    maps: NDArray[np.float32]
    features: NDArray[np.float32]


def main() -> None:
    """Run all steps."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    settings = Settings()
    cohort = read_cohort(arguments.films)
    base = load_base_weights()
    maps = third_stage_maps(base, cohort, arguments.scratch)
    crossed = cross_validate(base, cohort, maps, settings) if arguments.cross_validate else None
    if arguments.keep_head:
        tuned = load_file(arguments.out / HEAD)
    else:
        tuned = train_and_average(base, cohort, maps, cohort.of("train", "stop"), settings)
    write_recipe(arguments.out, arguments.films, cohort, tuned, settings, crossed)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--films", type=Path, required=True, help="folder with cohort.csv and its pictures")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for cached maps")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="recipe folder")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cross-validate", action="store_true", help="five folds on train and stop, for the card")
    parser.add_argument("--keep-head", action="store_true", help="calibrate and measure an existing head again")
    return parser.parse_args()


# Films


def read_cohort(folder: Path) -> Cohort:
    rows = read_csv(folder / "cohort.csv")
    spoilt = {row["file"] for row in read_csv(folder / "qc_flags.csv") if row["flag"] in SPOILT}
    patients = [row["patient_id"] for row in rows]
    parts = [part_of(patient) for patient in patients]
    parts = [
        "spoilt" if row["file"] in spoilt and part != "test" else part for row, part in zip(rows, parts, strict=True)
    ]
    lines = [
        f"{row['file']} {hashlib.sha256((folder / row['file']).read_bytes()).hexdigest()} {row['label']} {part}\n"
        for row, part in zip(rows, parts, strict=True)
    ]
    return Cohort(
        rows=rows,
        displays=[read_display(folder / row["file"]) for row in rows],
        labels=np.array([row["label"] == "abnormal" for row in rows], dtype=np.float32),
        patients=np.array(patients),
        parts=np.array(parts),
        digest=hashlib.sha256("".join(sorted(lines)).encode()).hexdigest(),
    )


def part_of(patient: str) -> str:
    """The part of a patient by keyed hash: the same for ever, whatever films are added."""
    digest = hmac.new(SPLIT_KEY, patient.encode(), hashlib.sha256).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return next(name for name, end in PARTS if place < end)


def fold_of(patient: str) -> int:
    return int(hashlib.sha256(b"fold" + patient.encode()).hexdigest(), 16) % 5


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_display(path: Path) -> NDArray[np.uint8]:
    display = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if display is None:
        raise SystemExit(f"{path} is not a picture")
    return display


def augment(display: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Slightly turned, shifted, scaled and with another gamma; never mirrored."""
    height, width = display.shape
    angle, scale = rng.uniform(-8, 8), rng.uniform(0.9, 1.1)
    shift = rng.uniform(-0.05, 0.05, 2) * (width, height)
    motion = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    motion[:, 2] += shift
    grey = (display / 255.0).astype(np.float32) ** np.float32(rng.uniform(0.8, 1.25))
    moved = cv2.warpAffine(grey, motion, (width, height), flags=cv2.INTER_LINEAR)
    return (moved * 255 + 0.5).astype(np.uint8)


# Training


def third_stage_maps(base: dict[str, Tensor], cohort: Cohort, scratch: Path) -> NDArray[np.uint16]:
    """Frozen part of the network on every film and its augmentations, once: bfloat16 bits, channels last.

    Shape ``(VARIANTS, films, EDGE / 16, EDGE / 16, 1024)``.
    """
    path, edge = scratch / "maps.npy", EDGE // 16
    if path.is_file():
        return np.load(path, mmap_mode="r")
    scratch.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    shape = (VARIANTS, len(cohort.rows), edge, edge, 1024)
    maps = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint16, shape=shape)
    network = fold(build({**base, **empty_head()}), mean=0, std=1)
    convert(network, device=torch.device("cpu"), dtype=torch.bfloat16)
    for variant in range(VARIANTS):
        rng = np.random.default_rng(variant)
        pictures = [network_input(augment(display, rng) if variant else display, EDGE) for display in cohort.displays]
        for start, batch in batches(pictures):
            with torch.inference_mode():
                third = stages(network, batch.bfloat16())
            bits = third.permute(0, 2, 3, 1).contiguous().view(torch.uint16)
            maps[variant, start : start + len(bits)] = bits.numpy()
        print(f"maps of variant {variant + 1} of {VARIANTS}", flush=True)
    maps.flush()
    unfinished.rename(path)
    return np.load(path, mmap_mode="r")


def train_and_average(
    base: dict[str, Tensor],
    cohort: Cohort,
    maps: NDArray[np.uint16],
    films: NDArray[np.int64],
    settings: Settings,
) -> dict[str, Tensor]:
    """Mean weights of several runs (M. Wortsman et al., Model soups, ICML 2022).

    Returns
    -------
    dict of str to torch.Tensor
        Convolutions of the last stage in bfloat16, all else of it and the linear layer in float32, by
        torchvision's keys.
    """
    runs = [train(base, cohort, maps, films, settings, seed) for seed in range(settings.runs)]
    means = {name: torch.stack([run[name] for run in runs]).mean(dim=0) for name in runs[0]}
    return {name: mean.bfloat16() if mean.ndim == 4 else mean for name, mean in means.items()}


def train(
    base: dict[str, Tensor],
    cohort: Cohort,
    maps: NDArray[np.uint16],
    films: NDArray[np.int64],
    settings: Settings,
    seed: int,
) -> dict[str, Tensor]:
    """Fine-tune the last stage from a linear probe; batch norm is not trained.

    Returns
    -------
    dict of str to torch.Tensor
        The last stage and the linear layer, float32, by torchvision's keys.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = build({key: tensor.clone() for key, tensor in {**base, **empty_head()}.items()})
    stage, linear = network.layer4.to(memory_format=torch.channels_last), network.fc
    for module in stage.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    start_from_probe(stage, linear, cohort, maps, films, settings)
    weights = [*(p for p in stage.parameters() if p.requires_grad), *linear.parameters()]
    start = [weight.detach().clone() for weight in weights]
    average = [weight.clone() for weight in start]
    groups = [
        {"params": weights[:-2], "lr": settings.learning_rate},
        {"params": weights[-2:], "lr": settings.head_learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    total = settings.epochs * -(-len(films) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / settings.warm_up_steps) * (1 + np.cos(np.pi * min(1, step / total))) / 2,
    )
    step = 0
    for epoch in range(settings.epochs):
        began, losses = time.monotonic(), []
        order = rng.permutation(films)
        for first in range(0, len(order), settings.batch_size):
            chosen = order[first : first + settings.batch_size]
            inputs = read_maps(maps, rng.integers(0, VARIANTS, len(chosen)), chosen)
            targets = torch.from_numpy(cohort.labels[chosen])
            inputs, targets = mix(inputs, targets, settings.mixup, rng)
            with torch.autocast("cpu", torch.bfloat16):
                pooled = stage(inputs).float().mean(dim=(2, 3))
            pooled = functional.dropout(pooled.float(), settings.dropout)
            loss = functional.binary_cross_entropy_with_logits(linear(pooled)[:, 0], targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            decay = min(settings.average_decay, (step + 1) / (step + 10))
            with torch.no_grad():
                for mean, weight in zip(average, weights, strict=True):
                    mean.lerp_(weight, 1 - decay)
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.monotonic() - began:.0f} s", flush=True)
    # Half-way back to the start generalises better: M. Wortsman et al., Robust fine-tuning, CVPR 2022.
    for mean, weight in zip(average, start, strict=True):
        mean.lerp_(weight, settings.start_share)
    names = {id(weight): name for name, weight in network.named_parameters()}
    trained = {names[id(weight)]: mean.contiguous() for weight, mean in zip(weights, average, strict=True)}
    norms = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if name.startswith("layer4.") and name in base and name not in trained
    }
    return {**trained, **norms}


def start_from_probe(
    stage: nn.Sequential,
    linear: nn.Linear,
    cohort: Cohort,
    maps: NDArray[np.uint16],
    films: NDArray[np.int64],
    settings: Settings,
) -> None:
    """Start from a logistic regression on the means of the third and of the untrained last stage.

    The third stage alone knows as much as the last, and both together know more. Two channels of the last stage
    are therefore cleared and carry the regression's view of the third stage through to the linear layer.
    """
    passage = clear_passage(stage)
    pooled_third, pooled_last = [], []
    for first in range(0, len(films), settings.batch_size):
        chosen = films[first : first + settings.batch_size]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            third = read_maps(maps, [0] * len(chosen), chosen)
            pooled_third.append(third.float().mean(dim=(2, 3)).numpy())
            pooled_last.append(stage(third).float().mean(dim=(2, 3)).numpy())
    third_means, last_means = np.concatenate(pooled_third), np.concatenate(pooled_last)
    features = np.concatenate([third_means, last_means], axis=1)
    scaler = StandardScaler().fit(features)
    probe = LogisticRegression(C=settings.probe_strength, max_iter=2000)
    probe.fit(scaler.transform(features), cohort.labels[films])
    slopes = probe.coef_[0] / scaler.scale_
    third_slopes, last_slopes = slopes[: third_means.shape[1]], slopes[third_means.shape[1] :]
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(last_slopes)[None])
        linear.bias.fill_(float(probe.intercept_[0] - slopes @ scaler.mean_))
        open_passage(stage, linear, passage, torch.from_numpy(third_slopes).float())


@dataclass(frozen=True)
class Passage:
    """Two channels at each place of the last stage that carry nothing else."""

    first: list[int]  # after the first convolution of the first block
    second: list[int]  # after its second one
    last: list[int]  # of the stage's output


def clear_passage(stage: nn.Sequential) -> Passage:
    """Free the channels that matter least; what else reads or writes them is set to zero."""
    block = stage[0]
    passage = Passage(
        first=block.conv2.weight.square().sum(dim=(0, 2, 3)).argsort()[:2].tolist(),
        second=block.conv3.weight.square().sum(dim=(0, 2, 3)).argsort()[:2].tolist(),
        last=stage[-1].bn3.weight.abs().argsort()[:2].tolist(),
    )
    with torch.no_grad():
        for convolution, norm, outputs in (
            (block.conv1, block.bn1, passage.first),
            (block.conv2, block.bn2, passage.second),
            (block.downsample[0], block.downsample[1], passage.last),
            *((other.conv3, other.bn3, passage.last) for other in stage),
        ):
            convolution.weight[outputs] = 0
            for tensor, neutral in (
                (norm.weight, 1),
                (norm.bias, 0),
                (norm.running_mean, 0),
                (norm.running_var, 1),
            ):
                tensor[outputs] = neutral
        block.conv2.weight[:, passage.first] = 0
        block.conv3.weight[:, passage.second] = 0
        for other in stage[1:]:
            other.conv1.weight[:, passage.last] = 0
    return passage


def open_passage(stage: nn.Sequential, linear: nn.Linear, passage: Passage, slopes: Tensor) -> None:
    """Let positive and negative part of ``slopes · third stage`` through, one channel each."""
    block = stage[0]
    smooth = torch.tensor([1.0, 2.0, 1.0]) / 4  # at stride 2 every cell counts alike
    for place, sign in enumerate((1.0, -1.0)):
        first, second, last = passage.first[place], passage.second[place], passage.last[place]
        block.conv1.weight[first, :, 0, 0] = sign * slopes
        block.conv2.weight[second, first] = smooth[:, None] * smooth[None, :]
        block.conv3.weight[last, second, 0, 0] = 1
        linear.weight[0, last] = sign


def read_maps(
    maps: NDArray[np.uint16], variants: Sequence[int] | NDArray[np.int64], films: NDArray[np.int64]
) -> Tensor:
    bits = np.stack([maps[variant, film] for variant, film in zip(variants, films, strict=True)])
    return torch.from_numpy(bits).view(torch.bfloat16).permute(0, 3, 1, 2)


def mix(inputs: Tensor, targets: Tensor, strength: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    share = float(rng.beta(strength, strength))
    others = torch.from_numpy(rng.permutation(len(targets)))
    mixed = inputs.float() * share + inputs[others].float() * (1 - share)
    return mixed.bfloat16(), targets * share + targets[others] * (1 - share)


def empty_head() -> dict[str, Tensor]:
    return {"fc.weight": torch.zeros(1, 2048), "fc.bias": torch.zeros(1)}


def cross_validate(
    base: dict[str, Tensor], cohort: Cohort, maps: NDArray[np.uint16], settings: Settings
) -> dict[str, float]:
    """Mean AUC over five folds of the patients of train and stop, one run each."""
    films = cohort.of("train", "stop")
    folds = np.array([fold_of(cohort.patients[film]) for film in films])
    figures: dict[str, list[float]] = {"all": [], "PA": [], "AP": []}
    for number in range(5):
        tuned = train_and_average(base, cohort, maps, films[folds != number], replace(settings, runs=1))
        held = films[folds == number]
        outputs = run({**base, **{key: value.float() for key, value in tuned.items()}}, cohort, held)
        for name, values in figures.items():
            chosen = [place for place, film in enumerate(held) if name in ("all", cohort.rows[film]["view"])]
            values.append(float(roc_auc_score(cohort.labels[held[chosen]], outputs.logits[chosen])))
        print(f"fold {number + 1}: AUC {figures['all'][-1]:.4f}", flush=True)
    return {name: float(np.mean(values)) for name, values in figures.items()}


# The finished network


def run(weights: dict[str, Tensor], cohort: Cohort, films: NDArray[np.int64]) -> Outputs:
    return run_pictures(weights, [network_input(cohort.displays[film], EDGE) for film in films])


def run_pictures(weights: dict[str, Tensor], pictures: list[NDArray[np.uint8]]) -> Outputs:
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    network: ResNet = fold(build({key: tensor.clone() for key, tensor in weights.items()}), mean=0, std=1)
    convert(network, device=device, dtype=dtype)
    logits, maps, features = [], [], []
    for _, batch in batches(pictures):
        with torch.inference_mode():
            result = forward(network, batch.to(device=device, dtype=dtype))
        logits.append(result.logits.double().cpu().numpy())
        maps.append(result.maps.cpu().numpy())
        features.append(result.features.cpu().numpy())
    return Outputs(np.concatenate(logits), np.concatenate(maps), np.concatenate(features))


def batches(pictures: list[NDArray[np.uint8]]) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(pictures), 16):
        stack = np.stack(pictures[start : start + 16])
        yield start, as_tensor(stack, mean=0, device=torch.device("cpu"), dtype=torch.float32)


# Calibration, thresholds, figures


def fit_calibration(outputs: Outputs, cohort: Cohort) -> Calibration:
    films = cohort.of("calibrate")
    platt = LogisticRegression(C=np.inf, max_iter=1000)
    platt.fit(outputs.logits[films, None], cohort.labels[films])
    return Calibration(slope=float(platt.coef_[0, 0]), intercept=float(platt.intercept_[0]), films=len(films))


def fit_operating_point(scores: NDArray[np.float64], cohort: Cohort) -> OperatingPoint | None:
    """Exact binomial rule on one abnormal film of each calibration patient."""
    first: dict[str, int] = {}
    for film in cohort.of("calibrate"):
        if cohort.labels[film]:
            first.setdefault(cohort.patients[film], film)
    ordered = np.sort(scores[list(first.values())])
    misses = int(binom.ppf(1 - CONFIDENCE, len(ordered), 1 - SENSITIVITY))
    if binom.cdf(misses, len(ordered), 1 - SENSITIVITY) > 1 - CONFIDENCE:
        misses -= 1
    if misses < 0:
        return None
    return OperatingPoint(
        threshold=float(ordered[misses]),
        sensitivity=SENSITIVITY,
        confidence=CONFIDENCE,
        abnormal_patients=len(ordered),
        misses=misses,
    )


def fit_evidence_threshold(evidence: NDArray[np.float32], cohort: Cohort) -> float:
    films = [film for film in cohort.of("calibrate") if not cohort.labels[film]]
    peaks = np.sort(evidence[films].max(axis=(1, 2)))[::-1]
    allowed = int(CONTOUR_SHARE * len(peaks))
    return float(peaks[allowed - 1] + peaks[allowed]) / 2 if allowed else float(np.nextafter(peaks[0], np.inf))


def fit_gate(outputs: Outputs, cohort: Cohort) -> tuple[FeatureGate, dict[str, NDArray[np.float32]]]:
    """Subspace of all films but the test's; the threshold from distances of films that it was not fitted on."""
    films = cohort.of("train", "stop", "calibrate")
    folds = np.array([fold_of(cohort.patients[film]) for film in films])
    features = outputs.features[films]
    held = np.concatenate(
        [
            distances(features[folds == number], fit_subspace(features[folds != number], GATE_COMPONENTS))
            for number in range(5)
        ]
    )
    threshold = GATE_MARGIN * float(np.quantile(held, GATE_QUANTILE))
    gate = FeatureGate(threshold=threshold, quantile=GATE_QUANTILE, margin=GATE_MARGIN)
    return gate, fit_subspace(features, GATE_COMPONENTS)


def measure(scores: NDArray[np.float64], point: OperatingPoint | None, cohort: Cohort) -> list[Metric]:
    """Figures on the test patients."""
    test = cohort.of("test")
    groups = {
        "all": test,
        "view PA": [film for film in test if cohort.rows[film]["view"] == "PA"],
        "view AP": [film for film in test if cohort.rows[film]["view"] == "AP"],
        "women": [film for film in test if cohort.rows[film]["sex"] == "F"],
        "men": [film for film in test if cohort.rows[film]["sex"] == "M"],
    }
    metrics = [area(f"AUC, {name}", scores, np.array(films), cohort) for name, films in groups.items()]
    metrics.append(area("AUC of view, age, sex and brightness alone", shortcut(cohort), test, cohort))
    if point is not None:
        below = scores[test] < point.threshold
        abnormal = cohort.labels[test] == 1
        metrics.append(share("sensitivity at the operating point", ~below[abnormal], normal=False))
        metrics.append(share("specificity at the operating point", below[~abnormal], normal=True))
    return metrics


def area(name: str, scores: NDArray[np.float64], films: NDArray[np.int64], cohort: Cohort) -> Metric:
    """AUC with a bootstrap interval over patients."""
    rng = np.random.default_rng(0)
    labels, values = cohort.labels[films], scores[films]
    _, owners = np.unique(cohort.patients[films], return_inverse=True)
    members = [np.flatnonzero(owners == owner) for owner in range(owners.max() + 1)]
    drawn = []
    while len(drawn) < BOOTSTRAP:
        places = np.concatenate([members[owner] for owner in rng.integers(0, len(members), len(members))])
        if 0 < labels[places].sum() < len(places):
            drawn.append(roc_auc_score(labels[places], values[places]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Metric(
        name=name,
        value=round(float(roc_auc_score(labels, values)), 4),
        low=round(float(low), 4),
        high=round(float(high), 4),
        normal=int((labels == 0).sum()),
        abnormal=int((labels == 1).sum()),
    )


def share(name: str, hits: NDArray[np.bool_], *, normal: bool) -> Metric:
    """A proportion with its Clopper-Pearson interval."""
    count, total = int(hits.sum()), len(hits)
    return Metric(
        name=name,
        value=round(count / total, 4),
        low=round(float(beta.ppf(0.025, count, total - count + 1)) if count else 0.0, 4),
        high=round(float(beta.ppf(0.975, count + 1, total - count)) if count < total else 1.0, 4),
        normal=total if normal else 0,
        abnormal=0 if normal else total,
    )


def shortcut(cohort: Cohort) -> NDArray[np.float64]:
    """Scores of a model that never sees the lungs."""
    ages = np.array([float(row["age"] or 50) for row in cohort.rows])
    columns = [
        np.array([row["view"] == "AP" for row in cohort.rows]),
        np.array([row["sex"] == "M" for row in cohort.rows]),
        ages,
        ages**2,
        np.array([display.mean() for display in cohort.displays]),
        np.array([display.std() for display in cohort.displays]),
    ]
    features = np.stack(columns, axis=1).astype(np.float64)
    known = cohort.of("train", "stop")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features[known], cohort.labels[known])
    return np.asarray(model.decision_function(features))


# Files


def write_recipe(
    out: Path,
    films: Path,
    cohort: Cohort,
    tuned: dict[str, Tensor],
    settings: Settings,
    crossed: dict[str, float] | None,
) -> None:
    """Calibrate, measure and write every file of the recipe."""
    out.mkdir(parents=True, exist_ok=True)
    (out / HEAD).write_bytes(as_file(tuned))
    weights_file = joined_weights(out / HEAD)
    weights = {**load_base_weights(), **{key: tensor.float() for key, tensor in tuned.items()}}
    outputs = run(weights, cohort, np.arange(len(cohort.rows)))
    calibration = fit_calibration(outputs, cohort)
    scores = 1 / (1 + np.exp(-(calibration.slope * outputs.logits + calibration.intercept)))
    point = fit_operating_point(scores, cohort)
    gate, subspace = fit_gate(outputs, cohort)
    description = Description(
        name="Clearfilm reference",
        version=VERSION,
        note="demonstration, NIH films",
        created=datetime.now(UTC).date(),
        intended_use=(
            "Demonstration and tests of the software with adult frontal chest radiographs. Not a medical device, "
            "not for clinical use: retrain on your own archive."
        ),
        architecture="resnet152",
        input_edge=EDGE,
        preprocessing_id=PREPROCESSING_ID,
        preprocessing_hash=preprocessing_hash(),
        calibration=calibration,
        operating_point=point,
        evidence_threshold=fit_evidence_threshold(outputs.maps * np.float32(calibration.slope), cohort),
        feature_gate=gate,
        training_data=TrainingData(
            digest=cohort.digest,
            description="NIH ChestX-ray14 subset, adults, frontal; labels text-mined by NIH",
            films={part: len(cohort.of(part)) for part, _ in PARTS},
        ),
        metrics=tuple(measure(scores, point, cohort)),
    )
    external = measure_external(films, weights, description, subspace)
    peaks = (outputs.maps * np.float32(calibration.slope)).max(axis=(1, 2))
    shown = peaks[cohort.of("calibrate")] >= description.evidence_threshold
    contours = float(shown[cohort.labels[cohort.of("calibrate")] == 1].mean())
    card = render_card(description, asdict(settings), crossed, external, contours, counts(cohort))
    files = {
        WEIGHTS: weights_file,
        DESCRIPTION: dump_description(description),
        CARD: card.encode(),
        FEATURES: as_file(subspace),
    }
    for name in (DESCRIPTION, CARD, FEATURES):
        (out / name).write_bytes(files[name])
    recipe = Recipe(bundle_digest=files_digest(files))
    (out / RECIPE).write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
    print(card)


def counts(cohort: Cohort) -> list[tuple[str, int, int, int]]:
    """Name, patients, normal and abnormal films of each part."""
    table = []
    for part in (*(name for name, _ in PARTS), "spoilt"):
        films = cohort.of(part)
        abnormal = int(cohort.labels[films].sum())
        table.append((part, len(set(cohort.patients[films])), len(films) - abnormal, abnormal))
    return table


def measure_external(
    folder: Path,
    weights: dict[str, Tensor],
    description: Description,
    subspace: dict[str, NDArray[np.float32]],
) -> dict[str, float] | None:
    """Films of another hospital, all of patients with COVID-19: share analysed and share above the threshold."""
    if not (folder / "external_hannover.csv").is_file():
        return None
    rows = read_csv(folder / "external_hannover.csv")
    outputs = run_pictures(weights, [network_input(read_display(folder / row["file"]), EDGE) for row in rows])
    usual = distances(outputs.features, subspace) <= description.feature_gate.threshold
    calibration, point = description.calibration, description.operating_point
    scores = 1 / (1 + np.exp(-(calibration.slope * outputs.logits + calibration.intercept)))
    above = scores >= point.threshold if point else np.ones(len(rows), dtype=bool)
    return {
        "films": len(rows),
        "patients": len({row["patient_id"] for row in rows}),
        "analysed": float(usual.mean()),
        "above": float(above[usual].mean()),
    }


if __name__ == "__main__":
    main()
