"""Training films per second: ours against a plain torchvision loop on the same DICOM films, both learn everything.

    python -m bench.training --films FOLDER [--count 32] [--rounds 3] [--threads 2] [--out FILE]

The peer is what a tutorial would write: a DataLoader that decodes and augments each film in each epoch, fp32,
torchvision's `resnet152`. Both take turns, so that they see the same machine; an epoch is one pass over the films,
and ours has decoded them before (reported apart, since it is paid once).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.models import resnet152
from torchvision.transforms import v2

from clearfilm.config import Config, Training, Worker
from clearfilm.vision.network import build, choose_dtype
from training.cache import decode
from training.cohort import Candidate, Film, Selection
from training.cohort import build as build_cohort
from training.data import Batches, FilmSource, make_source
from training.model import Frozen, Learner, Start, starting_weights
from training.progress import Silent
from training.train import make_optimizer
from worker.decoder import DecoderPool

ROWS, COLUMNS = 2500, 2048  # NIH's own size: 10 MB in 16 bits
EDGE, BATCH = 224, 16
KEY = b"bench"


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
        folder = Path(name)
        paths = make_films(arguments.films, folder / "films", arguments.count)
        start = starting_weights("base", seed=0, mean=0, std=1)
        peer = Peer(paths, start, arguments.workers)
        ours = {part: Ours(paths, folder, start, part, arguments.threads) for part in ("all", "last_stage")}
        seconds: dict[str, list[float]] = {"plain fp32 loop": [], **{f"ours, {part}": [] for part in ours}}
        outside: dict[str, list[float]] = {part: [] for part in ours}
        for number in range(1, arguments.rounds + 1):
            seconds["plain fp32 loop"].append(peer.epoch() / len(paths))
            for part, run in ours.items():
                whole, waiting = run.epoch(number)
                seconds[f"ours, {part}"].append(whole / run.films)
                outside[part].append(waiting / whole)
    results = {
        "films": len(paths),
        "pixels": [ROWS, COLUMNS],
        "edge": EDGE,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "seconds_per_film": {name: statistics.median(values) for name, values in seconds.items()},
        "outside_network": {part: statistics.median(values[1:] or values) for part, values in outside.items()},
        "once": {part: run.once for part, run in ours.items()},
    }
    report(results)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--films", type=Path, required=True, help="folder with JPEG or PNG films to make DICOM of")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--workers", type=int, default=1, help="decoding processes of the plain loop")
    parser.add_argument("--scratch", type=Path, help="folder for films and caches")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser.parse_args()


def make_films(source: Path, folder: Path, count: int) -> list[Path]:
    """Real pictures as 12-bit DX films of full size, not compressed."""
    folder.mkdir(parents=True)
    paths = []
    for number, picture in enumerate(sorted(source.rglob("*.jpg"))[:count]):
        grey = cv2.resize(np.asarray(cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)), (COLUMNS, ROWS))
        paths.append(folder / f"{number}.dcm")
        film(grey.astype(np.uint16) * 16).save_as(paths[-1], enforce_file_format=True)
    return paths


def film(pixels: np.ndarray[Any, Any]) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition, ds.PatientAge = "DX", "CHEST", "PA", "050Y"
    ds.PresentationIntentType, ds.PhotometricInterpretation = "FOR PRESENTATION", "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 16, 12, 11, 0
    ds.PixelData = pixels.tobytes()
    return ds


class PlainFilms(TorchDataset[tuple[Tensor, float]]):
    """Decoded and augmented anew each time."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._changes = v2.Compose(
            [
                v2.Resize((EDGE, EDGE), antialias=True),
                v2.RandomAffine(10, translate=(0.05, 0.05), scale=(0.9, 1.1)),
                v2.ColorJitter(brightness=0.15, contrast=0.15),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> tuple[Tensor, float]:
        pixels = dcmread(self._paths[place]).pixel_array.astype(np.float32)
        low, high = np.percentile(pixels[::4, ::4], (0.5, 99.5))
        grey = torch.from_numpy(np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32))[None]
        return self._changes(grey).expand(3, -1, -1), float(place % 2)


class Peer:
    """The plain loop."""

    def __init__(self, paths: list[Path], start: Start, workers: int) -> None:
        self._network = resnet152(num_classes=1)
        three = {**start.weights, "conv1.weight": start.weights["conv1.weight"].expand(-1, 3, -1, -1) / 3}
        self._network.load_state_dict(three, strict=False)
        self._network.train()
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=1e-5)
        self._loader = DataLoader(PlainFilms(paths), batch_size=BATCH, shuffle=True, num_workers=workers)

    def epoch(self) -> float:
        began = time.perf_counter()
        for films, targets in self._loader:
            self._optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(self._network(films)[:, 0], targets.float())
            loss.backward()
            self._optimizer.step()
        return time.perf_counter() - began


class Ours:
    """The steps of `training.train` on cached films or maps."""

    def __init__(self, paths: list[Path], folder: Path, start: Start, part: str, threads: int) -> None:
        config = Config(data_folder=folder, worker=Worker(device="cpu", threads=threads, decoders=1))
        settings = Training.model_validate({"train": part, "batch_size": BATCH, "micro_batch": BATCH, "edge": EDGE})
        candidates = [
            Candidate(Film(str(path.name), f"{place:064}", "", ("normal", "abnormal")[place % 2], "train"), "P")
            for place, path in enumerate(paths)
        ]
        key = next(k for k in (bytes([n]) for n in range(256)) if _in_train(k))
        out = folder / f"cohort-{part}"
        cohort = build_cohort(Selection(candidates, []), out, root=paths[0].parent, source="archive", key=key)
        began = time.perf_counter()
        with DecoderPool(config) as decoder:
            store = decode(cohort, EDGE, folder / f"cache-{part}", decoder, Silent())
        decoded = time.perf_counter() - began
        device = torch.device("cpu")
        precision = choose_dtype("auto", device)
        frozen = Frozen(start, settings, device, precision)
        began = time.perf_counter()
        source = make_source(cohort, store, start, frozen, settings, device, folder / f"cache-{part}", Silent())
        self.once = {
            "decoding, s per film": decoded / len(paths),
            "frozen part, s per film": 0.0
            if isinstance(source, FilmSource)
            else (time.perf_counter() - began) / len(paths),
        }
        network = build({name: tensor.clone() for name, tensor in start.weights.items()})
        self._learner = Learner(network, settings, precision)
        self._optimizer, _ = make_optimizer(self._learner.learning(network), settings)
        labels = np.arange(len(paths), dtype=np.float32) % 2
        self._batches, self._source = Batches(cohort.of("train"), labels, source, settings), source
        self.films = self._batches.steps * self._batches.batch_size

    def epoch(self, number: int) -> tuple[float, float]:
        """Seconds of an epoch, and of these outside the network."""
        began, busy = time.perf_counter(), 0.0
        for micro_batches in self._batches.epoch(number):
            started = time.perf_counter()
            self._optimizer.zero_grad()
            for batch in micro_batches:
                logits = self._learner(self._source.to_learner(batch.inputs))
                nn.functional.binary_cross_entropy_with_logits(logits, batch.targets).backward()
            nn.utils.clip_grad_norm_(self._learner.parameters(), 1.0)
            self._optimizer.step()
            busy += time.perf_counter() - started
        whole = time.perf_counter() - began
        return whole, whole - busy


def _in_train(key: bytes) -> bool:
    from training.split import part_of

    return part_of("P", key) == "train"


def report(results: dict[str, Any]) -> None:
    seconds = results["seconds_per_film"]
    plain = seconds["plain fp32 loop"]
    print(f"{results['films']} DICOM films of {COLUMNS} x {ROWS}, {EDGE} px, {results['threads']} threads")
    for name, value in seconds.items():
        print(f"  {name:20} {value:7.3f} s per film {1 / value:7.2f} films/s {plain / value:6.2f} x")
    for part, share in results["outside_network"].items():
        print(f"  outside the network, {part}: {share:.1%}; once: {results['once'][part]}")


if __name__ == "__main__":
    main()
