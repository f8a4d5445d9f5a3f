"""Maps of evidence in calibrated log-odds, by pytorch-grad-cam's methods.

The default map, "cam", comes out of `clearfilm.vision.network.forward`. For global average pooling and one linear
layer GradCAM at the last block is that map divided by its number of cells (R. R. Selvaraju et al., ICCV 2017,
appendix A), and so are HiResCAM and XGradCAM.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models import ResNet

# Their values are the class activation map's, but for the number of cells.
_LOG_ODDS_METHODS: Final = frozenset({"GradCAM", "HiResCAM", "XGradCAM"})


class GradCamMaps:
    """One of pytorch-grad-cam's methods at the last block of a network. For one thread.

    Parameters
    ----------
    network : torchvision.models.ResNet
        Folded, float32. All its parameters are frozen but those of the last block, which the library's hooks need.
    method : str
        Name of a class of `pytorch_grad_cam`.
    """

    def __init__(self, network: ResNet, method: str) -> None:
        import pytorch_grad_cam

        self._method = method
        self._layer = network.layer4[-1]
        network.requires_grad_(False)
        self._layer.requires_grad_(True)
        self._cam: Any = getattr(pytorch_grad_cam, method)(model=network, target_layers=[self._layer])

    def maps(self, films: Tensor, reference: NDArray[np.float32], slope: float) -> NDArray[np.float32]:
        """Maps on the scale of the class activation map.

        Parameters
        ----------
        films : torch.Tensor
            Shape ``(n, 1, edge, edge)``, float32, as the network takes it.
        reference : numpy.ndarray
            Class activation maps of the same films, float32, shape ``(n, h, w)``, in calibrated log-odds.
        slope : float
            Calibrated log-odds per unit of the network's logit.

        Returns
        -------
        numpy.ndarray
            float32, shape ``(n, h, w)``. GradCAM, HiResCAM and XGradCAM: the library's values before it stretches
            each film to 0 to 1, in calibrated log-odds. The other methods have no unit: their positive part,
            rescaled so that its largest value is the film's largest in `reference`.
        """
        raw = self._raw_maps(films)
        if self._method in _LOG_ODDS_METHODS:
            return raw * np.float32(raw[0].size * slope)
        positive = np.maximum(raw, 0)
        largest = positive.max(axis=(1, 2), keepdims=True)
        ceiling = np.maximum(reference.max(axis=(1, 2), keepdims=True), 0)
        return np.divide(positive * ceiling, largest, out=np.zeros_like(positive), where=largest > 0)

    def _raw_maps(self, films: Tensor) -> NDArray[np.float32]:
        """What the library computes before it cuts off negative values and stretches each film."""
        recorder = self._cam.activations_and_grads
        with torch.enable_grad():
            logits = recorder(films)  # (film, 1)
            if self._cam.uses_gradients:
                logits.sum().backward()
        activations = recorder.activations[0].numpy()
        gradients = recorder.gradients[0].numpy() if recorder.gradients else None
        targets = [None] * len(films)
        raw = self._cam.get_cam_image(films, self._layer, targets, activations, gradients, False)
        recorder.clear()
        self._layer.zero_grad(set_to_none=True)
        return np.asarray(raw, dtype=np.float32)
