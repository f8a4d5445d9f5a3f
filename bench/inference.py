"""Score and map per film: our engine against plain pytorch-grad-cam on torchvision's ResNet152, same weights.

    python -m bench.inference [--bundle models/reference] [--rounds 7] [--out FILE]

Peers take turns within each round; the figure is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchvision.models import ResNet, resnet152

from clearfilm.config import Heatmap, Worker
from clearfilm.vision.assemble import resolve_bundle
from clearfilm.vision.bundle import load_bundle
from clearfilm.vision.engine import Engine
from clearfilm.vision.network import as_tensor


def main() -> None:
    """Measure, print a table, write JSON."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        bundle = load_bundle(resolve_bundle(arguments.bundle, arguments.data or Path(folder)))
        began = time.perf_counter()
        engine = Engine(bundle, Worker(batch_size=8, threads=arguments.threads), Heatmap())
        start = time.perf_counter() - began
        peer = plain_network(bundle.weights())
        edge = bundle.description.input_edge
    results: dict[str, Any] = {
        "engine": engine.describe(),
        "processor": platform.processor() or platform.machine(),
        "start_seconds": round(start, 2),
        "rounds": arguments.rounds,
        "seconds_per_film": {},
    }
    for films in (1, 8):
        results["seconds_per_film"][str(films)] = measure(engine, peer, films, edge, arguments.rounds)
    report(results)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("models/reference"), help="bundle or recipe folder")
    parser.add_argument("--data", type=Path, help="folder that keeps the assembled bundle")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser.parse_args()


def plain_network(weights: dict[str, torch.Tensor]) -> ResNet:
    """torchvision's own network with three equal input channels: what a user of the library would run."""
    network = resnet152(num_classes=1)
    three = {**weights, "conv1.weight": weights["conv1.weight"].expand(-1, 3, -1, -1) / 3}
    network.load_state_dict(three, strict=False)
    return network.eval()


def measure(engine: Engine, peer: ResNet, films: int, edge: int, rounds: int) -> dict[str, float]:
    inputs = np.random.default_rng(0).integers(0, 256, (films, edge, edge), dtype=np.uint8)
    tensor = torch.from_numpy(inputs)[:, None].expand(-1, 3, -1, -1).float() / 255
    ours = engine._network  # the same network without the map
    own_input = as_tensor(inputs, mean=0, device=engine._device, dtype=engine._dtype)

    def library() -> None:
        with GradCAM(model=peer, target_layers=[peer.layer4[-1]]) as cam:
            cam(input_tensor=tensor, targets=[ClassifierOutputTarget(0)] * films)

    def torchvision_forward() -> None:
        with torch.inference_mode():
            peer(tensor)

    def own_forward() -> None:
        with torch.inference_mode():
            stem = ours.maxpool(ours.relu(ours.conv1(own_input)))
            last = ours.layer4(ours.layer3(ours.layer2(ours.layer1(stem))))
            ours.fc(last.mean(dim=(2, 3)).float()).cpu()

    peers: dict[str, Callable[[], Any]] = {
        "pytorch-grad-cam on torchvision, fp32": library,
        "torchvision forward only, fp32": torchvision_forward,
        "our forward only": own_forward,
        "ours: score, map and gate": lambda: engine.run(inputs),
    }
    for call in peers.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, call in peers.items():
            began = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - began) / films)
    return {name: statistics.median(values) for name, values in times.items()}


def report(results: dict[str, Any]) -> None:
    print(f"{results['engine']}; start {results['start_seconds']} s")
    for films, figures in results["seconds_per_film"].items():
        ours = figures["ours: score, map and gate"]
        print(f"\n{films} film(s) at a time: seconds per film, times ours")
        for name, seconds in figures.items():
            print(f"  {name:40} {seconds:8.4f} {seconds / ours:7.2f} x")
        figures["faster than pytorch-grad-cam"] = figures["pytorch-grad-cam on torchvision, fp32"] / ours
        figures["map relative to forward"] = ours / figures["our forward only"]
        print(f"  map costs {figures['map relative to forward']:.3f} x our plain forward pass")


if __name__ == "__main__":
    main()
