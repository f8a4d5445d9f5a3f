"""ResNet152 with one logit and a grey input, and its fast form for inference.

K. He et al., Deep residual learning for image recognition, CVPR 2016; torchvision's `resnet152` and its keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet, resnet152

from clearfilm.errors import BundleError

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, eq=False)
class Forward:
    """What one forward pass gives for n films; float32, on the network's device.

    Parameters
    ----------
    logits : torch.Tensor
        Shape ``(n,)``, not calibrated; mean of `maps` plus the linear layer's bias.
    maps : torch.Tensor
        Class activation maps, shape ``(n, h, w)``; h = w = edge / 32.
    features : torch.Tensor
        Means over the upper and the lower half of the third stage's maps, shape ``(n, 2048)``.
    """

    logits: Tensor
    maps: Tensor
    features: Tensor


def build(weights: Mapping[str, Tensor]) -> ResNet:
    """Make torchvision's network with a one-channel first layer and one logit.

    Parameters
    ----------
    weights : mapping of str to torch.Tensor
        Every tensor of the network by torchvision's keys; batch counters may be absent. Used as they are,
        not copied.

    Returns
    -------
    torchvision.models.ResNet
        In evaluation mode.

    Raises
    ------
    BundleError
        If a tensor is missing, unknown or of another shape.
    """
    # Nothing is initialised at random on the meta device, which would take seconds.
    with torch.device("meta"):
        network = resnet152(num_classes=1)
        network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    counters = {key: torch.tensor(0) for key in network.state_dict() if key.endswith(_COUNTER)}
    try:
        network.load_state_dict({**counters, **weights}, assign=True)
    except RuntimeError as error:
        raise BundleError("the bundle's weights are not those of a ResNet152 with one logit") from error
    return network.eval()


def fold(network: ResNet, *, mean: float, std: float) -> ResNet:
    """Fold batch norm and input scaling into the convolutions, in place.

    Parameters
    ----------
    network : torchvision.models.ResNet
        From `build`, float32.
    mean, std : float
        The network takes ``(grey - mean) / std`` with grey from 0 to 1.

    Returns
    -------
    torchvision.models.ResNet
        The same object; it now takes grey from 0 to 255 minus ``255 × mean``. Zero padding stays exact.
    """
    network.conv1 = fuse_conv_bn_eval(network.conv1, network.bn1)
    network.bn1 = nn.Identity()
    with torch.no_grad():
        network.conv1.weight /= 255 * std
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            for place in (1, 2, 3):
                convolution, norm = getattr(block, f"conv{place}"), getattr(block, f"bn{place}")
                setattr(block, f"conv{place}", fuse_conv_bn_eval(convolution, norm))
                setattr(block, f"bn{place}", nn.Identity())
            if block.downsample is not None:
                block.downsample = fuse_conv_bn_eval(block.downsample[0], block.downsample[1])
    return network.requires_grad_(False)


def stages(network: ResNet, films: Tensor) -> Tensor:
    """Everything before the last stage.

    Parameters
    ----------
    network : torchvision.models.ResNet
    films : torch.Tensor
        Shape ``(n, 1, edge, edge)``, scaled as the network wants it.

    Returns
    -------
    torch.Tensor
        Shape ``(n, 1024, edge / 16, edge / 16)``.
    """
    stem = network.maxpool(network.relu(network.bn1(network.conv1(films))))
    third: Tensor = network.layer3(network.layer2(network.layer1(stem)))
    return third


def forward(network: ResNet, films: Tensor) -> Forward:
    """Logit, class activation map and features out of one forward pass.

    The mean over space and the linear layer change places: B. Zhou et al., Learning deep features for
    discriminative localization, CVPR 2016. The last step is float32 whatever the precision of the rest.

    Parameters
    ----------
    network : torchvision.models.ResNet
    films : torch.Tensor
        Shape ``(n, 1, edge, edge)``, scaled as the network wants it.

    Returns
    -------
    Forward
    """
    third = stages(network, films)
    last = network.layer4(third)  # (film, channel, row, column)
    maps = torch.einsum("fcij,c->fij", last.float(), network.fc.weight[0].float())
    logits = maps.mean(dim=(1, 2)) + network.fc.bias.float()
    return Forward(logits=logits, maps=maps, features=_halves(third))


def _halves(third: Tensor) -> Tensor:
    upper, lower = third.float().chunk(2, dim=2)
    return torch.cat([upper.mean(dim=(2, 3)), lower.mean(dim=(2, 3))], dim=1)


def convert(network: ResNet, *, device: torch.device, dtype: torch.dtype) -> ResNet:
    """Move a folded network to its device and number type, in place; the linear layer stays float32.

    Weights are converted once instead of by autocast at every call.
    """
    linear, network.fc = network.fc, nn.Identity()
    network.to(device=device, dtype=dtype, memory_format=torch.channels_last)
    network.fc = linear.to(device)
    return network


def as_tensor(inputs: NDArray[np.uint8], *, mean: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Films in the form that a folded network takes.

    Parameters
    ----------
    inputs : numpy.ndarray
        uint8, shape ``(n, edge, edge)``.
    mean : float
        As in `fold`.
    device, dtype
        Of the result. Whole numbers from 0 to 255 are exact in bfloat16.

    Returns
    -------
    torch.Tensor
        Shape ``(n, 1, edge, edge)``, channels last.
    """
    films = torch.from_numpy(np.ascontiguousarray(inputs)).to(device)[:, None].float()
    if mean:
        films -= 255 * mean
    return films.to(dtype=dtype, memory_format=torch.channels_last)


def choose_device(wanted: str) -> torch.device:
    """The device for a configured name; "auto" is the first CUDA device if there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def choose_dtype(wanted: Literal["auto", "bf16", "fp32"], device: torch.device) -> torch.dtype:
    """The number type for a configured precision; "auto" is bfloat16 where the device multiplies it natively."""
    if wanted == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bfloat16()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    # Absent before torch 2.11. Without these instructions oneDNN converts to float32 and back, and loses.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
