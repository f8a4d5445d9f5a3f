"""Planted opacities: found, and pointed at, after training on them; and how small and faint they may be.

    python -m bench.opacities --films FOLDER --scratch FOLDER [--picture FILE] [--out FILE]

FOLDER: `cohort.csv` (file, patient_id, view, age, label …) and its pictures. Each clear film with two visible lungs
comes twice, as it is and with one opacity in a lung; patients are split by the product's keyed hash and the network is
trained by the product's own loop, from the base weights; a run that was broken off goes on. Then other patients' films
are read, without and with opacities over all sizes and contrasts, by the finished bundle as a worker runs it. The aims
hold for a ball of 8 % of the film's width that adds 30 % of the film's grey range at its centre. A hit: the peak of the
7 x 7 map is the cell that looks nearest to the opacity's centre or one of the eight around it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from clearfilm.config import Config, Heatmap
from clearfilm.dicom.pixels import PreparedFilm
from clearfilm.vision.bundle import load_bundle
from clearfilm.vision.contours import draw_evidence
from clearfilm.vision.engine import Engine
from training.cohort import ABNORMAL, NORMAL, Cohort, build, load, read_folder
from training.evaluation.chest import Mask, find_chest, lung_fields
from training.evaluation.planted import place, plant, plant_all
from training.evaluation.pointing import Found, pointing_hits, sweep
from training.films import prepare_picture
from training.train import train

EDGE, PLANTED_EDGE = 224, 512
SIZE, CONTRAST = 0.08, 0.3
SIZES = (0.03, 0.05, 0.08, 0.12)
CONTRASTS = (0.05, 0.1, 0.2, 0.3)
AIMS = {"auc": 0.95, "hits": 0.85}
KEY = b"bench.opacities"
SEED = 1
# Neither weights nor early stop have seen these; the threshold, which uses "calibrate", plays no part here.
EVALUATED = ("calibrate", "test")


def main() -> None:
    arguments = parse_arguments()
    folder: Path = arguments.scratch
    config = configuration(folder, arguments)
    cohort = load(folder / "cohort") if (folder / "cohort").is_dir() else make_cohort(arguments.films, folder)
    bundle_folder = train(cohort, folder / "run", config, NoDecoder(), resume=True, watcher=Lines())
    assert bundle_folder is not None
    bundle = load_bundle(bundle_folder)
    engine = Engine(bundle, config.worker, Heatmap())
    films = evaluated(cohort)
    if arguments.picture:
        draw(engine, films, bundle.description.evidence_threshold, arguments.picture)
    found = sweep(lambda some: read(engine, some), films, list(product(SIZES, CONTRASTS)), SEED, Lines())
    result = {
        "films": cohort.counts(),
        "evaluated_films": len(films),
        "settings": config.training.model_dump(mode="json"),
        "sweep": [asdict(one) for one in found],
    }
    report(found)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--films", type=Path, required=True, help="folder with cohort.csv and its pictures")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for films, caches (2 GB) and run")
    parser.add_argument("--picture", type=Path, help="PNG file to write: planted films with their maps")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--variants", type=int, default=4, help="cached versions of each training film")
    parser.add_argument("--train", default="last_stage", help="what learns: last_stage or last_two_stages")
    return parser.parse_args()


@dataclass(frozen=True, eq=False)
class Clear:
    """A clear film, windowed and square."""

    name: str
    patient: str
    view: str
    age: str
    film: NDArray[np.uint8]
    lungs: Mask


def clear_films(folder: Path) -> Iterator[Clear]:
    """Clear films with two visible lungs."""
    with (folder / "cohort.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["label"] == NORMAL]
    for row in rows:
        film = prepare_picture(folder / row["file"], PLANTED_EDGE).network_input
        chest = find_chest(film)
        if not chest.fell_back:
            yield Clear(Path(row["file"]).stem, row["patient_id"], row["view"], row["age"], film, chest.lungs)


def make_cohort(source: Path, folder: Path) -> Cohort:
    """Each film without and with an opacity, as pictures, split by patient."""
    films = folder / "films"
    films.mkdir(parents=True, exist_ok=True)
    table = films / "films.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "patient_id", "label", "view", "age"])
        for number, one in enumerate(clear_films(source)):
            opacity = place(one.lungs, SIZE, CONTRAST, np.random.default_rng((SEED, number)))
            for label, film in ((NORMAL, one.film), (ABNORMAL, plant(one.film, opacity))):
                name = f"{one.name}-{label}.png"
                cv2.imwrite(str(films / name), film)
                writer.writerow([name, one.patient, label, one.view, one.age])
    selection = read_folder(films, table, NoDecoder())
    return build(selection, folder / "cohort", root=films, source="folder", key=KEY)


def configuration(folder: Path, arguments: argparse.Namespace) -> Config:
    return Config.model_validate(
        {
            "data_folder": folder,
            "worker": {"device": "cpu", "threads": arguments.threads},
            "training": {
                "train": arguments.train,
                "edge": EDGE,
                "epochs": arguments.epochs,
                "cached_variants": arguments.variants,
                "average_decay": 0.99,
            },
        }
    )


class NoDecoder:
    """All films are pictures."""

    def submit(self, path: Path, edge: int) -> Future[PreparedFilm]:
        raise AssertionError(f"{path} is no picture")


class Lines:
    """Prints the lines that stay, and each phase."""

    def begin(self, what: str, total: int) -> None:
        print(f"{time.strftime('%H:%M:%S')} {what} ({total})", flush=True)

    def advance(self, note: str = "") -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def evaluated(cohort: Cohort) -> NDArray[np.uint8]:
    """The clear films of patients that nothing was learned from."""
    films = [cohort.films[number] for number in cohort.of(*EVALUATED) if not cohort.films[number].abnormal]
    return np.stack([prepare_picture(cohort.path(film), EDGE).network_input for film in films])


def read(engine: Engine, films: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    readings = engine.run(films)
    return np.array([one.logit for one in readings]), np.stack([one.evidence for one in readings])


def draw(engine: Engine, films: NDArray[np.uint8], threshold: float, path: Path) -> None:
    """Two dozen planted films: the opacity in a circle, the map as people see it, a red frame where it misses."""
    films = films[:: max(1, len(films) // 24)][:24]
    planted, opacities = plant_all(films, [lung_fields(film) for film in films], SIZE, CONTRAST, SEED)
    _, maps = read(engine, planted)
    tiles = []
    for film, opacity, evidence, hit in zip(planted, opacities, maps, pointing_hits(maps, opacities), strict=True):
        tile = cv2.cvtColor(cv2.resize(film, (448, 448)), cv2.COLOR_GRAY2RGB)
        draw_evidence(tile, evidence, threshold)
        centre = (round(opacity.column * 448), round(opacity.row * 448))
        cv2.circle(tile, centre, round(opacity.size * 448), (90, 200, 255), 1, cv2.LINE_AA)
        if not hit:
            cv2.rectangle(tile, (0, 0), (447, 447), (255, 0, 0), 6)
        tiles.append(tile)
    rows = [np.hstack(tiles[at : at + 6]) for at in range(0, len(tiles) // 6 * 6, 6)]
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def report(found: tuple[Found, ...]) -> None:
    aimed = next(one for one in found if (one.size, one.contrast) == (SIZE, CONTRAST))
    print(f"{SIZE:.0%} of the width, contrast {CONTRAST}, {aimed.films} films of other patients")
    print(f"  AUC without against with: {aimed.auc:.3f} ({aimed.auc_interval[0]:.3f} to {aimed.auc_interval[1]:.3f})")
    print(f"  peak within one cell: {aimed.hits:.3f} ({aimed.hits_interval[0]:.3f} to {aimed.hits_interval[1]:.3f}), ")
    print(f"  by chance {aimed.chance:.3f}")
    for name, figure in (("AUC", "auc"), ("peak within one cell", "hits")):
        print(f"\n{name:20} contrast" + "".join(f"{contrast:7}" for contrast in CONTRASTS))
        for size in SIZES:
            row = [getattr(one, figure) for one in found if one.size == size]
            print(f"  size {size:4.0%}{'':18}" + "".join(f"{value:7.3f}" for value in row))
    missed = [name for name, aim in AIMS.items() if getattr(aimed, name) < aim]
    print("\naims reached" if not missed else f"\nbelow the aim: {', '.join(missed)}")


if __name__ == "__main__":
    main()
