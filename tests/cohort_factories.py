"""Small cohorts of pictures: abnormal ones have a bright spot."""

import csv
from concurrent.futures import Future
from pathlib import Path

import cv2
import numpy as np

from clearfilm.dicom.pixels import PreparedFilm
from training.cohort import Cohort, build, read_folder
from training.split import part_of

KEY = b"key of the tests"


class NoDecoder:
    """For cohorts of pictures, which need none."""

    def submit(self, path: Path, edge: int) -> Future[PreparedFilm]:
        raise AssertionError(f"{path} is no picture")


def picture(*, abnormal: bool, seed: int, edge: int = 96) -> np.ndarray:
    rng = np.random.default_rng(seed)
    film = cv2.resize(rng.integers(20, 120, (6, 6), dtype=np.uint8), (edge, edge), interpolation=cv2.INTER_CUBIC)
    film = film + rng.integers(0, 8, film.shape, dtype=np.uint8)
    if abnormal:
        row, column = rng.integers(edge // 4, edge // 2, 2)
        film[row : row + edge // 4, column : column + edge // 4] = 250
    return film


def patients_of(part: str, count: int) -> list[str]:
    """Names of patients whom the key puts into a part."""
    names = (f"P{number:04}" for number in range(10_000))
    return [name for name in names if part_of(name, KEY) == part][:count]


def write_films(folder: Path, per_part: dict[str, int]) -> Path:
    """Pictures of `per_part` patients, half of them abnormal, and their table."""
    folder.mkdir(parents=True)
    rows = []
    for part, count in per_part.items():
        for number, patient in enumerate(patients_of(part, count)):
            abnormal, name = number % 2 == 1, f"{patient}.png"
            cv2.imwrite(str(folder / name), picture(abnormal=abnormal, seed=len(rows)))
            rows.append([name, patient, "abnormal" if abnormal else "normal", "PA", "F", "50"])
    return write_table(folder, rows)


def write_table(folder: Path, rows: list[list[str]]) -> Path:
    table = folder / "films.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "patient_id", "label", "view", "sex", "age"])
        writer.writerows(rows)
    return table


def small_cohort(folder: Path, *, train: int = 8, others: int = 4) -> Cohort:
    """A cohort of pictures in all four parts."""
    table = write_films(folder / "films", {"train": train, "stop": others, "calibrate": others, "test": others})
    selection = read_folder(folder / "films", table, NoDecoder())
    return build(selection, folder / "cohort", root=folder / "films", source="folder", key=KEY)
