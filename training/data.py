"""What the learner is fed: the order of the films, their random versions, and batches made ahead of time.

Everything random follows from (seed, epoch, film), so that a resumed run goes on exactly as it would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearfilm.config import Training
from clearfilm.dicom.preprocessing import preprocessing_hash
from clearfilm.errors import TrainingError
from training.augment import OVERSAMPLING, augment
from training.cache import Store, digest_of, stored
from training.cohort import Cohort
from training.model import Frozen, Start
from training.progress import Watcher, watched

_INFERENCE_BATCH = 16
# Part of a cached array's name: change it when `training.augment` changes.
_AUGMENTATION = "augmentation-1"


@dataclass(frozen=True, eq=False)
class Batch:
    """Films of one forward pass, not yet on the device: as the source made them, with targets 0 to 1."""

    inputs: Tensor
    targets: Tensor


class Source(Protocol):
    """Makes the learner's inputs."""

    def training(self, places: Sequence[int], epoch: int) -> Tensor:
        """Random versions of training films, on the CPU."""

    def plain(self, places: Sequence[int]) -> Tensor:
        """Films as they are, on the CPU."""

    def to_learner(self, inputs: Tensor) -> Tensor:
        """The rest of the way, on the device."""


class FilmSource:
    """Augments films anew in each epoch; the frozen part runs in each step."""

    def __init__(self, store: Store, frozen: Frozen, seed: int) -> None:
        self._store, self._frozen, self._seed = store, frozen, seed

    def training(self, places: Sequence[int], epoch: int) -> Tensor:
        """uint8, shape ``(n, edge, edge)``."""
        films = [
            augment(self._store.wide_film(place), self._store.edge, np.random.default_rng((self._seed, epoch, place)))
            for place in places
        ]
        return torch.from_numpy(np.stack(films))

    def plain(self, places: Sequence[int]) -> Tensor:
        """uint8, shape ``(n, edge, edge)``."""
        return torch.from_numpy(np.stack([self._store.film(place) for place in places]))

    def to_learner(self, inputs: Tensor) -> Tensor:
        """Through the frozen part, if there is one."""
        return self._frozen(inputs)


class MapSource:
    """Hands out what the frozen part made once of each film and of some versions of the training films.

    Parameters
    ----------
    training : list of numpy.ndarray
        For each version shape ``(films, …)``, channels last: float32, or bits of bfloat16. The first is of the
        films themselves.
    others : numpy.ndarray
        Of all other films.
    """

    def __init__(
        self,
        training: Sequence[NDArray[np.generic]],
        others: NDArray[np.generic],
        store: Store,
        seed: int,
        device: torch.device,
    ) -> None:
        self._training, self._others, self._store = training, others, store
        self._seed, self._device = seed, device

    def training(self, places: Sequence[int], epoch: int) -> Tensor:
        """A random version of each film."""
        variants = [
            int(np.random.default_rng((self._seed, epoch, place)).integers(len(self._training))) for place in places
        ]
        rows = [self._training[variant][self._store.rows[p]] for variant, p in zip(variants, places, strict=True)]
        return _as_maps(np.stack(rows))

    def plain(self, places: Sequence[int]) -> Tensor:
        """Each film itself."""
        rows = [
            self._training[0][self._store.rows[place]]
            if place in self._store.training
            else self._others[self._store.rows[place]]
            for place in places
        ]
        return _as_maps(np.stack(rows))

    def to_learner(self, inputs: Tensor) -> Tensor:
        """To the device."""
        return inputs.to(self._device)


def _as_maps(rows: NDArray[np.generic]) -> Tensor:
    tensor = torch.from_numpy(rows)
    if tensor.dtype == torch.uint16:
        tensor = tensor.view(torch.bfloat16)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def make_source(
    cohort: Cohort,
    store: Store,
    start: Start,
    frozen: Frozen,
    settings: Training,
    device: torch.device,
    folder: Path,
    watcher: Watcher,
) -> Source:
    """The source that fits what learns: cached maps where a part is frozen and caching is on.

    Parameters
    ----------
    folder : pathlib.Path
        For cached maps: at 224 pixels and one stage that learns 0.4 MB for each version of a film.
    """
    if frozen.is_empty or settings.cached_variants == 0:
        return FilmSource(store, frozen, settings.seed)
    shape = frozen.shape(store.edge)
    dtype = np.dtype(np.float32) if len(shape) == 1 else np.dtype(np.uint16)
    settled = (preprocessing_hash(), _AUGMENTATION, OVERSAMPLING, store.edge, shape, str(frozen.precision))
    name = digest_of(cohort.digest, start.digest(), repr(settled))

    def maps(films: Iterator[NDArray[np.uint8]], total: int) -> Iterator[NDArray[np.generic]]:
        for films_of_batch in _groups(watched(films, "frozen part of the network", total, watcher)):
            result = frozen(torch.from_numpy(np.stack(films_of_batch)))
            if result.ndim == 4:
                bits = result.permute(0, 2, 3, 1).to(torch.bfloat16).contiguous().view(torch.uint16)
                yield from bits.cpu().numpy()
            else:
                yield from result.cpu().numpy()

    def stored_maps(kind: str, films: Iterator[NDArray[np.uint8]], count: int) -> NDArray[np.generic]:
        return stored(folder / f"{name}-{kind}.npy", (count, *shape), dtype, maps(films, count))

    training, others = cohort.of("train"), cohort.of("stop", "calibrate", "test", "temporal")
    # A file for each version: a killed run has to make one of them again.
    versions = [
        stored_maps(f"train-{variant}", (_version(store, place, variant) for place in training), len(training))
        for variant in range(settings.cached_variants)
    ]
    rest = stored_maps("others", (store.film(place) for place in others), len(others))
    return MapSource(versions, rest, store, settings.seed, device)


def _version(store: Store, place: int, variant: int) -> NDArray[np.uint8]:
    """The same for all seeds, so that runs share them."""
    if variant == 0:
        return store.film(place)
    return augment(store.wide_film(place), store.edge, np.random.default_rng((variant, place)))


def _groups(films: Iterator[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    group: list[NDArray[np.uint8]] = []
    for film in films:
        group.append(film)
        if len(group) == _INFERENCE_BATCH:
            yield group
            group = []
    if group:
        yield group


class Batches:
    """The micro-batches of an epoch for one of several processes.

    Each optimizer step takes `batch_size` films over all processes; what is left at the end of an epoch waits for
    the next one, whose order is another.

    Parameters
    ----------
    places : sequence of int
        Training films.
    labels : numpy.ndarray
        float32, of all films of the cohort.
    source : Source
    settings : Training
    rank, world : int
        This process and how many there are.

    Raises
    ------
    TrainingError
        If the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        places: Sequence[int],
        labels: NDArray[np.float32],
        source: Source,
        settings: Training,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.batch_size = min(settings.batch_size, len(places) // world * world)
        if self.batch_size == 0 or self.batch_size % world:
            raise TrainingError(
                f"a batch of {settings.batch_size} of {len(places)} training films cannot be shared out evenly to "
                f"{world} processes: change training.batch_size"
            )
        self._places, self._labels, self._source, self._settings = np.array(places), labels, source, settings
        self._rank, self._world = rank, world

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return len(self._places) // self.batch_size

    def epoch(self, number: int) -> Iterator[list[Batch]]:
        """The micro-batches of each step of an epoch; the next step's are made while this one's are used."""
        order = np.random.default_rng((self._settings.seed, number)).permutation(self._places)
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as ahead:
            waiting = ahead.submit(self._step, order, number, 0)
            for step in range(self.steps):
                ready = waiting.result()
                if step + 1 < self.steps:
                    waiting = ahead.submit(self._step, order, number, step + 1)
                yield ready

    def _step(self, order: NDArray[np.int64], epoch: int, step: int) -> list[Batch]:
        share = self.batch_size // self._world
        first = step * self.batch_size + self._rank * share
        own = order[first : first + share]
        size = self._settings.micro_batch
        return [self._batch(own[start : start + size], epoch) for start in range(0, share, size)]

    def _batch(self, places: NDArray[np.int64], epoch: int) -> Batch:
        inputs = self._source.training([int(place) for place in places], epoch)
        targets = torch.from_numpy(self._labels[places])
        if self._settings.mixup and len(places) > 1:
            rng = np.random.default_rng((self._settings.seed, epoch, int(places[0]), 1))
            return _mix(inputs, targets, self._settings.mixup, rng)
        return Batch(inputs, targets)


def _mix(inputs: Tensor, targets: Tensor, strength: float, rng: np.random.Generator) -> Batch:
    """H. Zhang et al., mixup: Beyond empirical risk minimization, ICLR 2018."""
    share = float(rng.beta(strength, strength))
    others = torch.from_numpy(rng.permutation(len(targets)))
    mixed = inputs.float() * share + inputs[others].float() * (1 - share)
    kind = inputs.dtype
    mixed = mixed.round().to(kind) if kind == torch.uint8 else mixed.to(kind)
    return Batch(mixed, targets * share + targets[others] * (1 - share))
