"""Checkpoints."""

from pathlib import Path

import pytest
import torch

from clearfilm.errors import TrainingError
from training.checkpoint import WEIGHTS, Checkpoint, Epoch, Progress, flatten, latest, of_epoch, save, unflatten


def epoch(number: int, criterion: float) -> Epoch:
    return Epoch(
        number=number,
        loss=1,
        auc=criterion,
        partial_auc=criterion,
        criterion=criterion,
        films_per_second=1,
        seconds=1,
        outside_network=0,
    )


def checkpoint(*criteria: float) -> Checkpoint:
    progress = Progress(step=5, epochs=tuple(epoch(number, value) for number, value in enumerate(criteria, start=1)))
    tensors = {"fc.weight": torch.full((1, 3), float(len(criteria)))}
    return Checkpoint(progress, tensors, tensors, flatten({"fc.weight": {"exp_avg": torch.ones(3)}}))


def test_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(0.5))
    found = latest(tmp_path)
    assert found is not None
    assert found.progress == checkpoint(0.5).progress
    assert torch.equal(found.weights["fc.weight"], torch.ones(1, 3))
    assert unflatten(found.optimizer)["fc.weight"]["exp_avg"].tolist() == [1, 1, 1]


def test_latest_and_best_are_kept_apart(tmp_path: Path) -> None:
    for criteria in ((0.5,), (0.5, 0.9), (0.5, 0.9, 0.7), (0.5, 0.9, 0.7, 0.8)):
        save(tmp_path, checkpoint(*criteria))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0002", "epoch-0004"]
    found = latest(tmp_path)
    assert found is not None
    assert found.progress.done == 4
    assert of_epoch(tmp_path, 2).weights["fc.weight"][0, 0] == 2


def test_first_of_equal_epochs_is_the_best() -> None:
    best = checkpoint(0.5, 0.9, 0.9).progress.best
    assert best is not None
    assert best.number == 2


def test_unfinished_checkpoint_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(0.5))
    (tmp_path / ".epoch-0002.abc").mkdir()
    found = latest(tmp_path)
    assert found is not None
    assert found.progress.done == 1
    save(tmp_path, checkpoint(0.5, 0.6))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0002"]


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(0.5))
    path = tmp_path / "epoch-0001" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(TrainingError, match="damaged"):
        latest(tmp_path)


def test_nothing_yet_is_no_error(tmp_path: Path) -> None:
    assert latest(tmp_path / "checkpoints") is None
