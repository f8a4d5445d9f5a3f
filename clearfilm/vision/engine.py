"""The network of one bundle, ready to read films."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from clearfilm.config import Heatmap, Worker
from clearfilm.errors import BundleError
from clearfilm.vision.bundle import Bundle
from clearfilm.vision.heatmap import GradCamMaps
from clearfilm.vision.network import as_tensor, build, choose_device, choose_dtype, convert, fold, forward
from clearfilm.vision.unusual import distances


@dataclass(frozen=True, eq=False)
class Reading:
    """What the network says about one film.

    Parameters
    ----------
    logit : float
        Calibrated log-odds of a significant finding.
    score : float
        Calibrated probability of a significant finding, 0 to 1.
    evidence : numpy.ndarray
        float32, shape ``(h, w)``; `clearfilm.vision.placing` says where its cells look. In calibrated log-odds on one
        scale for all films: with method "cam", mean plus `Engine.bias` is `logit`.
    distance : float
        Distance of the film's features to those that the bundle knows.
    unusual : bool
        Whether the distance is above the bundle's threshold: the score then means nothing.
    below_operating_point : bool
        Whether the film has no significant finding; never true for a bundle without operating point.
    """

    logit: float
    score: float
    evidence: NDArray[np.float32]
    distance: float
    unusual: bool
    below_operating_point: bool


class Engine:
    """Reads films with one bundle. For one thread; sets torch's number of CPU threads for the process.

    Parameters
    ----------
    bundle : Bundle
        Verified by `clearfilm.vision.bundle.load_bundle`.
    worker : Worker
        Device, precision, batch size and threads.
    heatmap : Heatmap
        Method of the map.

    Raises
    ------
    BundleError
        If the weights do not fit the architecture.
    """

    def __init__(self, bundle: Bundle, worker: Worker, heatmap: Heatmap) -> None:
        _configure_cpu(worker.threads)
        description = bundle.description
        self._edge = description.input_edge
        self._mean = description.input_mean
        self._batch_size = worker.batch_size
        self._calibration = description.calibration
        self._point = description.operating_point
        self._gate = description.feature_gate
        self._subspace = bundle.features()
        self._device = choose_device(worker.device)
        self._dtype = choose_dtype(worker.precision, self._device)
        network = fold(build(bundle.weights()), mean=description.input_mean, std=description.input_std)
        self.bias = self._calibration.slope * float(network.fc.bias) + self._calibration.intercept
        self._method = heatmap.method
        self._other_maps: GradCamMaps | None = None
        if heatmap.method != "cam":
            # Gradients want float32; the score still comes from the network below.
            second = fold(build(bundle.weights()), mean=description.input_mean, std=description.input_std)
            self._other_maps = GradCamMaps(second.to(self._device), heatmap.method)
        self._network = convert(network, device=self._device, dtype=self._dtype)

    def describe(self) -> str:
        """Device, number type, threads and version of torch, in one line for logs and records."""
        precision = "bf16" if self._dtype == torch.bfloat16 else "fp32"
        if self._device.type == "cuda":
            place = f"cuda ({torch.cuda.get_device_name(self._device)})"
        else:
            place = f"cpu ({torch.get_num_threads()} threads)"
        return f"{place}, {precision}, map {self._method}, torch {torch.__version__}"

    def run(self, inputs: NDArray[np.uint8]) -> list[Reading]:
        """Read films.

        What comes out for a film does not depend on the others beyond the rounding of the number type.

        Parameters
        ----------
        inputs : numpy.ndarray
            uint8, shape ``(n, edge, edge)``, from `clearfilm.dicom.pixels.network_input`; any n. More than the
            configured batch size go through the network in several passes.

        Returns
        -------
        list of Reading
            One for each film, in order.
        """
        if inputs.dtype != np.uint8 or inputs.shape[1:] != (self._edge, self._edge):
            raise ValueError(f"films must be uint8 of shape (n, {self._edge}, {self._edge}), not {inputs.shape}")
        readings: list[Reading] = []
        for start in range(0, len(inputs), self._batch_size):
            readings += self._run_batch(inputs[start : start + self._batch_size])
        return readings

    def _run_batch(self, inputs: NDArray[np.uint8]) -> list[Reading]:
        with torch.inference_mode():
            films = as_tensor(inputs, mean=self._mean, device=self._device, dtype=self._dtype)
            result = forward(self._network, films)
            maps, raw_logits, features = (
                tensor.cpu().numpy() for tensor in (result.maps, result.logits, result.features)
            )
        if not np.isfinite(raw_logits).all():
            raise BundleError("the bundle's network gave a score that is no number")
        slope = self._calibration.slope
        evidence = maps * np.float32(slope)
        if self._other_maps is not None:
            exact = as_tensor(inputs, mean=self._mean, device=self._device, dtype=torch.float32)
            evidence = self._other_maps.maps(exact, evidence, slope)
        logits = slope * raw_logits.astype(np.float64) + self._calibration.intercept
        scores = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
        return [
            Reading(
                logit=float(logit),
                score=float(score),
                evidence=cells,
                distance=float(distance),
                unusual=bool(distance > self._gate.threshold),
                below_operating_point=self._point is not None and float(score) < self._point.threshold,
            )
            for logit, score, cells, distance in zip(
                logits, scores, evidence, distances(features, self._subspace), strict=True
            )
        ]


def _configure_cpu(threads: int) -> None:
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    # The tiny weights of the base network otherwise run several times slower.
    torch.set_flush_denormal(True)
