"""The network while it learns: where it starts, which part learns, and the frozen part before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ResNet, ResNet152_Weights, resnet152

from clearfilm.config import Training
from clearfilm.errors import BundleError, TrainingError
from clearfilm.vision.base_weights import load_base_weights
from clearfilm.vision.bundle import load_bundle
from clearfilm.vision.network import build, convert, fold

_STAGES: Final = ("layer1", "layer2", "layer3", "layer4")
# How many stages stay frozen; the first layer learns only if all do.
_FROZEN_STAGES: Final = {"all": 0, "last_two_stages": 2, "last_stage": 3, "head": 4}
# Channels and edge (as a share of the input's) of what the frozen part hands on.
_HANDED_ON: Final = {2: (512, 8), 3: (1024, 16)}
FEATURES: Final = 2048
# torchvision's mean and standard deviation of ImageNet, averaged over the three colours.
_IMAGENET_MEAN, _IMAGENET_STD = 0.449, 0.226


@dataclass(frozen=True, eq=False)
class Start:
    """Starting weights by torchvision's keys, and the scaling of the input that they are used to.

    The network takes ``(grey - mean) / std`` with grey from 0 to 1.
    """

    weights: dict[str, Tensor]
    mean: float
    std: float
    origin: str
    split_key: str | None = None
    """Of a bundle: name of the key that split its patients, if it is known."""

    def digest(self) -> str:
        """SHA-256 of weights and scaling."""
        whole = hashlib.sha256(f"{self.mean} {self.std}".encode())
        for name, tensor in sorted(self.weights.items()):
            whole.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
        return whole.hexdigest()


def starting_weights(init: str, *, seed: int, mean: float, std: float) -> Start:
    """Find the weights that training starts from.

    Parameters
    ----------
    init : str
        See `clearfilm.config.Training.init`.
    seed : int
        For random weights.
    mean, std : float
        Of the training films, grey from 0 to 1; used with random weights.

    Raises
    ------
    TrainingError
        If there are no such weights.
    BundleError
        If they are damaged or not those of a ResNet152.
    """
    if init == "base":
        return Start(_with_head(load_base_weights()), 0.0, 1.0, "base weights")
    if init == "random":
        return Start(_random_weights(seed), mean, std, "random weights")
    if init == "imagenet":
        return Start(_from_torchvision(_download()), _IMAGENET_MEAN, _IMAGENET_STD, "ImageNet weights")
    path = Path(init)
    if path.is_dir():
        bundle = load_bundle(path)
        described = bundle.description
        origin, split_key = f"bundle {bundle.digest[:12]}", described.training_data.split_key
        return Start(bundle.weights(), described.input_mean, described.input_std, origin, split_key)
    if path.is_file():
        return Start(_from_torchvision(_read(path)), _IMAGENET_MEAN, _IMAGENET_STD, f"weights file {path.name}")
    raise TrainingError(f"training.init: there is neither a weights file nor a bundle at {init}")


def _with_head(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**weights, "fc.weight": torch.zeros(1, FEATURES), "fc.bias": torch.zeros(1)}


def _random_weights(seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = resnet152(num_classes=1).state_dict()
    return _from_torchvision({key: value for key, value in state.items() if not key.startswith("fc.")})


def _from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of three colours for grey films: a grey picture has the same value in all three."""
    body = {
        key: value.float()
        for key, value in state.items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    if "conv1.weight" in body:
        body["conv1.weight"] = body["conv1.weight"].sum(dim=1, keepdim=True)
    return _with_head(body)


def _download() -> Mapping[str, Tensor]:
    try:
        weights: Mapping[str, Tensor] = ResNet152_Weights.IMAGENET1K_V2.get_state_dict(check_hash=True, progress=False)
    except OSError as error:
        raise TrainingError(
            "ImageNet weights cannot be fetched: without a network set training.init to a file that you have"
        ) from error
    return weights


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Both libraries raise exceptions of many kinds on damaged files.
        raise BundleError(f"{path} is not a weights file ({type(error).__name__})") from error
    return state


class Learner(nn.Module):
    """The part of a network that learns; its parameters are the network's own.

    Parameters
    ----------
    network : torchvision.models.ResNet
        From `clearfilm.vision.network.build`, float32.
    settings : Training
    precision : torch.dtype
        Of the convolutions (autocast); the linear layer is float32.
    """

    def __init__(self, network: ResNet, settings: Training, precision: torch.dtype) -> None:
        super().__init__()
        frozen = _FROZEN_STAGES[settings.train]
        stages = [getattr(network, name) for name in _STAGES[frozen:]]
        stem = [network.conv1, network.bn1, network.relu, network.maxpool] if frozen == 0 else []
        self.body = nn.Sequential(*stem, *stages).to(memory_format=torch.channels_last)
        self._blocks = [block for stage in stages for block in stage]
        self._stem = stem
        self.head = network.fc
        self._dropout = settings.dropout
        self._precision = precision
        self._norms = [module for module in self.body.modules() if isinstance(module, nn.BatchNorm2d)]
        self._norms_learn = norms_learn(settings)
        for norm in self._norms:
            norm.requires_grad_(self._norms_learn)
        self.train()

    def train(self, mode: bool = True) -> Learner:
        """Batch norm keeps its statistics unless it is to learn."""
        super().train(mode)
        for norm in self._norms:
            norm.train(mode and self._norms_learn)
        return self

    def pooled(self, inputs: Tensor) -> Tensor:
        """Means over space of the last stage, float32, shape ``(n, 2048)``."""
        enabled = self._precision != torch.float32
        inputs = inputs if enabled else inputs.float()  # maps are cached in bfloat16
        with torch.autocast(inputs.device.type, self._precision, enabled=enabled):
            maps = self.body(inputs) if self._norms_learn else self._with_constant_norms(inputs)
        return maps.float().mean(dim=(2, 3)) if maps.ndim == 4 else maps.float()

    def _with_constant_norms(self, maps: Tensor) -> Tensor:
        """The same as `body`, with each constant batch norm multiplied into its convolution.

        Weights are fewer than activations: a tenth of the time on a CPU.
        """
        if self._stem:
            convolution, norm, _, pool = self._stem
            maps = pool(functional.relu_(_normed(convolution, norm, maps)))
        for block in self._blocks:
            inner = functional.relu_(_normed(block.conv1, block.bn1, maps))
            inner = functional.relu_(_normed(block.conv2, block.bn2, inner))
            inner = _normed(block.conv3, block.bn3, inner)
            shortcut = block.downsample
            beside = maps if shortcut is None else _normed(shortcut[0], shortcut[1], maps)
            maps = functional.relu_(inner + beside)
        return maps

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits.

        Parameters
        ----------
        inputs : torch.Tensor
            Films, shape ``(n, 1, edge, edge)``, or what `Frozen` makes of them.

        Returns
        -------
        torch.Tensor
            Shape ``(n,)``, float32.
        """
        pooled = functional.dropout(self.pooled(inputs), self._dropout, self.training)
        logits: Tensor = self.head(pooled)[:, 0]
        return logits

    def learning(self, network: ResNet) -> dict[str, Tensor]:
        """What changes in training, by torchvision's keys: parameters, and statistics of batch norm that learns."""
        wanted = {id(tensor) for tensor in self.parameters() if tensor.requires_grad}
        if self._norms_learn:
            wanted |= {id(tensor) for norm in self._norms for tensor in (norm.running_mean, norm.running_var)}
        named: Iterator[tuple[str, Tensor]] = iter([*network.named_parameters(), *network.named_buffers()])
        return {name: tensor for name, tensor in named if id(tensor) in wanted}


def _normed(convolution: nn.Conv2d, norm: nn.BatchNorm2d, maps: Tensor) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = convolution.weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    return functional.conv2d(maps, weight, bias, convolution.stride, convolution.padding)


def norms_learn(settings: Training) -> bool:
    """Whether batch norm learns; random weights need it, and small batches spoil the statistics of others."""
    if settings.batch_norm == "auto":
        return settings.init == "random"
    return settings.batch_norm == "trained"


class Frozen:
    """The part before the learner, folded and in the precision of inference.

    Parameters
    ----------
    start : Start
    settings : Training
    device, dtype
        Where and in which number type it computes.
    """

    def __init__(self, start: Start, settings: Training, device: torch.device, dtype: torch.dtype) -> None:
        self._count = _FROZEN_STAGES[settings.train]
        self._start = start
        self._device, self.precision = device, dtype
        self._network: ResNet | None = None
        if self._count:
            network = build({name: tensor.clone() for name, tensor in start.weights.items()})
            network = fold(network, mean=start.mean, std=start.std)
            self._network = convert(network, device=device, dtype=dtype)

    @property
    def is_empty(self) -> bool:
        """Whether everything learns."""
        return self._network is None

    def shape(self, edge: int) -> tuple[int, ...]:
        """Shape of one film's result, channels last."""
        if self._count == len(_STAGES):
            return (FEATURES,)
        channels, share = _HANDED_ON[self._count]
        return (edge // share, edge // share, channels)

    def __call__(self, films: Tensor) -> Tensor:
        """From films of uint8, shape ``(n, edge, edge)``, to the learner's input on the device."""
        grey = films.to(self._device)[:, None].float()
        if self._network is None:
            scaled = (grey / 255 - self._start.mean) / self._start.std
            return scaled.contiguous(memory_format=torch.channels_last)
        network = self._network
        with torch.no_grad():
            inputs = (grey - 255 * self._start.mean).to(dtype=self.precision, memory_format=torch.channels_last)
            maps = network.maxpool(network.relu(network.conv1(inputs)))
            for name in _STAGES[: self._count]:
                maps = getattr(network, name)(maps)
            return maps.float().mean(dim=(2, 3)) if self._count == len(_STAGES) else maps
