"""Checkpoints: a folder for each epoch, whole or absent whatever happens; no pickle.

``epoch-0007/`` holds the learning weights, their moving average, the optimizer's moments and `state.json`, which
has a SHA-256 for each of these. Latest and best are kept apart.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from clearfilm.errors import StorageError, TrainingError
from clearfilm.files import fsync_folder, sha256, write_durably
from clearfilm.vision.bundle import as_file

STATE: Final = "state.json"
WEIGHTS: Final = "weights.safetensors"
AVERAGE: Final = "average.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"


class Epoch(BaseModel):
    """Figures of one epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    """From 1."""
    loss: float
    auc: float
    """Of the averaged weights on the stop patients."""
    partial_auc: float
    """Mean specificity at sensitivities from 0.95 to 1."""
    criterion: float
    """What early stopping looks at."""
    films_per_second: float
    seconds: float
    outside_network: float
    """Share of the time that the network waited for films, checkpoints and other things."""


class Progress(BaseModel):
    """How far a run is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = 0
    """Optimizer steps so far."""
    epochs: tuple[Epoch, ...] = ()

    @property
    def done(self) -> int:
        """Epochs so far."""
        return len(self.epochs)

    @property
    def best(self) -> Epoch | None:
        """The first of the best epochs."""
        return max(self.epochs, key=lambda epoch: (epoch.criterion, -epoch.number), default=None)


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    progress: Progress
    files: dict[str, str]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything that a run needs to go on."""

    progress: Progress
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint of an epoch, then remove those that are neither latest nor best.

    Parameters
    ----------
    folder : pathlib.Path
        Of all checkpoints of a run.
    checkpoint : Checkpoint

    Raises
    ------
    StorageError
        If the disk refused; earlier checkpoints are untouched then.
    """
    progress = checkpoint.progress
    target = _place(folder, progress.done)
    temporary = folder / f".{target.name}.{secrets.token_hex(8)}"
    contents = {WEIGHTS: checkpoint.weights, AVERAGE: checkpoint.average, OPTIMIZER: checkpoint.optimizer}

    def write(name: str) -> str:
        content = as_file(contents[name])
        write_durably(temporary / name, [content])
        return hashlib.sha256(content).hexdigest()

    try:
        temporary.mkdir(parents=True)
        # The disk works on one file while another one is hashed: training waits for this.
        with ThreadPoolExecutor(len(contents)) as threads:
            digests = dict(zip(contents, threads.map(write, contents), strict=True))
        state = _State(progress=progress, files=digests).model_dump(mode="json")
        write_durably(temporary / STATE, [json.dumps(state, indent=2).encode() + b"\n"])
        temporary.rename(target)
        fsync_folder(folder)
    except OSError as error:
        raise StorageError(f"cannot write a checkpoint below {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _remove_old(folder, progress)


def _remove_old(folder: Path, progress: Progress) -> None:
    best = progress.best
    kept = {_place(folder, progress.done)} | ({_place(folder, best.number)} if best else set())
    for path in folder.iterdir():
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def latest(folder: Path) -> Checkpoint | None:
    """The checkpoint to go on from; None if no epoch was finished. Raises TrainingError if it is damaged."""
    found = sorted(folder.glob("epoch-*")) if folder.is_dir() else []
    return _load(found[-1]) if found else None


def of_epoch(folder: Path, number: int) -> Checkpoint:
    """The checkpoint of one epoch that was kept. Raises TrainingError."""
    return _load(_place(folder, number))


def _place(folder: Path, number: int) -> Path:
    return folder / f"epoch-{number:04d}"


def _load(folder: Path) -> Checkpoint:
    damaged = TrainingError(f"checkpoint {folder} is missing or damaged: delete it to go on from an earlier one")
    try:
        state = _State.model_validate_json((folder / STATE).read_bytes())
        if any(sha256(folder / name) != digest for name, digest in state.files.items()):
            raise damaged
        weights, average, optimizer = (load_file(folder / name) for name in (WEIGHTS, AVERAGE, OPTIMIZER))
    except (OSError, ValidationError) as error:
        raise damaged from error
    return Checkpoint(state.progress, weights, average, optimizer)


def flatten(states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """An optimizer's moments under one level of names."""
    return {f"{name}/{moment}": tensor for name, moments in states.items() for moment, tensor in moments.items()}


def unflatten(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The reverse of `flatten`."""
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, moment = key.rpartition("/")
        states.setdefault(name, {})[moment] = tensor
    return states
