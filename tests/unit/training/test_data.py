"""Batches: who gets which films, and that nothing depends on when they are made."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from clearfilm.config import Training
from clearfilm.errors import TrainingError
from training.data import Batches


class Places:
    """A source whose inputs are the films' places."""

    def training(self, places: Sequence[int], epoch: int) -> torch.Tensor:
        return torch.tensor(places)

    def plain(self, places: Sequence[int]) -> torch.Tensor:
        return torch.tensor(places)

    def to_learner(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


def batches(count: int = 10, *, rank: int = 0, world: int = 1, **values: object) -> Batches:
    settings = Training.model_validate({"batch_size": 4, "micro_batch": 2, **values})
    labels = (np.arange(count) % 2).astype(np.float32)
    return Batches(range(count), labels, Places(), settings, rank, world)


def places(made: Batches, epoch: int) -> list[list[list[int]]]:
    return [[batch.inputs.tolist() for batch in step] for step in made.epoch(epoch)]


def test_a_step_takes_one_batch_in_micro_batches_and_no_film_twice() -> None:
    epoch = places(batches(), 1)
    assert [[len(micro) for micro in step] for step in epoch] == [[2, 2], [2, 2]]
    flat = [place for step in epoch for micro in step for place in micro]
    assert len(set(flat)) == 8


def test_epochs_differ_and_repeat_exactly() -> None:
    assert places(batches(), 1) == places(batches(), 1)
    assert places(batches(), 1) != places(batches(), 2)
    assert places(batches(), 1) != places(batches(seed=1), 1)


def test_processes_share_the_films_of_a_step() -> None:
    alone = [{place for micro in step for place in micro} for step in places(batches(), 3)]
    pair = [places(batches(rank=rank, world=2), 3) for rank in (0, 1)]
    together = [{place for step in steps for micro in step for place in micro} for steps in zip(*pair, strict=True)]
    assert together == alone


def test_targets_belong_to_their_films() -> None:
    for step in batches().epoch(1):
        for batch in step:
            assert batch.targets.tolist() == [place % 2 for place in batch.inputs.tolist()]


def test_fewer_films_than_a_batch_make_one_step() -> None:
    assert batches(3).steps == 1


def test_batch_that_cannot_be_shared_out_is_refused_with_counts() -> None:
    with pytest.raises(TrainingError, match=r"batch of 4 of 10 training films .* 3 processes"):
        batches(world=3)


def test_mixed_films_have_mixed_targets() -> None:
    for step in batches(mixup=0.4, micro_batch=4).epoch(1):
        for batch in step:
            assert ((batch.targets >= 0) & (batch.targets <= 1)).all()
