"""Start of the linear layer: a logistic regression on the untrained network's features.

A random layer's first gradients would spoil good features before it has learned anything itself (A. Kumar et al.,
Fine-tuning can distort pretrained features, ICLR 2022).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn


def fit_probe(linear: nn.Linear, features: NDArray[np.float32], labels: NDArray[np.float32], strength: float) -> None:
    """Set a linear layer to a logistic regression.

    Parameters
    ----------
    linear : torch.nn.Linear
        One output; changed in place.
    features : numpy.ndarray
        Shape ``(films, channels)``, not scaled.
    labels : numpy.ndarray
        1 abnormal, 0 normal; both occur.
    strength : float
        Inverse of the L2 penalty on standardised features.
    """
    scaler = StandardScaler().fit(features.astype(np.float64))
    probe = LogisticRegression(C=strength, max_iter=1000)
    probe.fit(scaler.transform(features.astype(np.float64)), labels)
    slopes = probe.coef_[0] / scaler.scale_
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(slopes)[None])
        linear.bias.fill_(float(probe.intercept_[0] - slopes @ scaler.mean_))
