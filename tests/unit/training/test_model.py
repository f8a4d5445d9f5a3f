"""What learns, what is frozen, and that both together are the network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from clearfilm.config import Training
from clearfilm.errors import BundleError, TrainingError
from clearfilm.vision.bundle import as_file
from clearfilm.vision.network import as_tensor, build, fold, forward
from training.model import Frozen, Learner, Start, starting_weights
from training.train import make_optimizer

CPU = torch.device("cpu")
PARTS = ("head", "last_stage", "last_two_stages", "all")


def settings(**values: object) -> Training:
    return Training.model_validate({"edge": 64, "init": "base", **values})


def films(count: int = 4) -> torch.Tensor:
    coarse = np.random.default_rng(1).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    return torch.from_numpy(coarse.repeat(8, axis=1).repeat(8, axis=2))


def copied(start: Start) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in start.weights.items()}


@pytest.mark.parametrize("part", PARTS)
def test_frozen_part_and_learner_are_the_network_that_is_deployed(start: Start, part: str) -> None:
    wanted = settings(train=part)
    frozen = Frozen(start, wanted, CPU, torch.float32)
    learner = Learner(build(copied(start)), wanted, torch.float32).eval()
    with torch.inference_mode():
        logits = learner(frozen(films()))
        network = fold(build(copied(start)), mean=start.mean, std=start.std)
        inputs = as_tensor(films().numpy(), mean=start.mean, device=CPU, dtype=torch.float32)
        deployed = forward(network, inputs).logits
    assert logits.std() > 1e-3
    torch.testing.assert_close(logits, deployed, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("part", PARTS)
def test_every_trained_parameter_gets_a_gradient_and_no_other_one_learns(start: Start, part: str) -> None:
    wanted = settings(train=part)
    network = build(copied(start))
    learner = Learner(network, wanted, torch.float32)
    inputs = Frozen(start, wanted, CPU, torch.float32)(films())
    functional.binary_cross_entropy_with_logits(learner(inputs), torch.tensor([0.0, 1, 0, 1])).backward()
    learning = learner.learning(network)
    prefixes = {"head": ("fc",), "last_stage": ("fc", "layer4"), "last_two_stages": ("fc", "layer4", "layer3")}
    for name, parameter in network.named_parameters():
        expected = "bn" not in name and "downsample.1" not in name and name.startswith(prefixes.get(part, ("",)))
        assert (name in learning) == expected
        if expected:
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().max() > 0


def test_batch_norm_learns_from_random_weights_and_is_constant_otherwise(start: Start) -> None:
    for init, learns in (("random", True), ("base", False)):
        network = build(copied(start))
        learner = Learner(network, settings(init=init, train="last_stage"), torch.float32)
        learner(torch.rand(4, 1024, 4, 4))
        changed = not torch.equal(network.layer4[0].bn1.running_mean, start.weights["layer4.0.bn1.running_mean"])
        assert changed is learns
        assert ("layer4.0.bn1.weight" in learner.learning(network)) is learns


def test_one_batch_is_overfitted(start: Start) -> None:
    wanted = settings(train="last_stage", learning_rate=1e-3)
    network = build(copied(start))
    learner = Learner(network, wanted, torch.bfloat16)
    optimizer, _ = make_optimizer(learner.learning(network), wanted)
    inputs = Frozen(start, wanted, CPU, torch.bfloat16)(films())
    targets = torch.tensor([0.0, 1, 1, 0])
    for _ in range(30):
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(learner(inputs), targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


def test_colour_weights_are_summed_for_grey_films(start: Start, tmp_path: Path) -> None:
    colour = copied(start)
    colour["conv1.weight"] = colour["conv1.weight"].repeat(1, 3, 1, 1) / 3
    torch.save(colour, tmp_path / "weights.pth")
    (tmp_path / "weights.safetensors").write_bytes(as_file(colour))
    for name in ("weights.pth", "weights.safetensors"):
        read = starting_weights(str(tmp_path / name), seed=0, mean=0, std=1)
        torch.testing.assert_close(read.weights["conv1.weight"], start.weights["conv1.weight"])
        assert (read.mean, read.std) == (0.449, 0.226)


def test_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"nothing")
    with pytest.raises(BundleError, match="not a weights file"):
        starting_weights(str(tmp_path / "weights.pth"), seed=0, mean=0, std=1)
    with pytest.raises(TrainingError, match="neither"):
        starting_weights(str(tmp_path / "none"), seed=0, mean=0, std=1)
