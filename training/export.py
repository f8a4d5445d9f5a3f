"""De-identified copies of a cohort's films: pixels and an allow-list of values, no DICOM header at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2

from clearfilm.errors import NotAnalysable, TrainingError
from clearfilm.files import write_durably
from training.cohort import Cohort, Film, describe, dump_table
from training.films import Decoder, prepared
from training.progress import Silent, Watcher, watched
from training.split import pseudonym

TABLE: Final = "films.csv"
OLDEST_AGE: Final = 89
_COLUMNS = ("file", "patient_id", "label", "part", "view", "sex", "age", "tags")
_ANY_EDGE = 32


@dataclass(frozen=True)
class Exported:
    """What an export wrote and what it left out, by reason."""

    films: int
    left_out: dict[str, int]


def export(cohort: Cohort, out: Path, decoder: Decoder, key: bytes, *, watcher: Watcher | None = None) -> Exported:
    """Write films as 8-bit PNG pictures with a table that `clearfilm cohort build --folder` reads.

    Nothing of a DICOM header is copied. Patients and files get pseudonyms that differ from the cohort's own;
    dates, devices and sites are left out, ages above 89 become 90 (45 CFR 164.514(b)(2)). Films whose header says
    that there is text in the picture are left out; whether others have some must be looked at.

    Parameters
    ----------
    cohort : Cohort
    out : pathlib.Path
        New or empty folder.
    decoder : Decoder
    key : bytes
        From `training.split`.
    watcher : Watcher, optional

    Returns
    -------
    Exported

    Raises
    ------
    TrainingError
        If `out` is not empty, or nothing can be exported.
    StorageError
        If the disk refused.
    """
    if out.exists() and any(out.iterdir()):
        raise TrainingError(f"{out} is not empty; choose another folder for the export")
    rows: list[tuple[object, ...]] = []
    left_out: Counter[str] = Counter()
    decoded = prepared([cohort.path(film) for film in cohort.films], _ANY_EDGE, decoder)
    films = zip(cohort.films, decoded, strict=True)
    for film, picture in watched(films, "exporting films", len(cohort.films), watcher or Silent()):
        if isinstance(picture, NotAnalysable):
            left_out[picture.reason] += 1
        elif picture.facts.burned_in_annotation.upper() == "YES":
            left_out["burned-in annotation"] += 1
        else:
            row = _row(film, key)
            _, content = cv2.imencode(".png", picture.display)
            write_durably(out / str(row[0]), [content.tobytes()])
            rows.append(row)
    if not rows:
        raise TrainingError(f"nothing to export of {len(cohort.films)} films: {describe(left_out)}")
    write_durably(out / TABLE, [dump_table(_COLUMNS, iter(sorted(rows, key=str)))])
    return Exported(len(rows), dict(left_out))


def _row(film: Film, key: bytes) -> tuple[object, ...]:
    name = pseudonym(film.sha256, key, purpose="exported film")
    age = str(min(int(film.age), OLDEST_AGE + 1)) if film.age else ""
    patient = pseudonym(film.patient, key, purpose="exported patient")
    return (f"{name[:2]}/{name}.png", patient, film.label, film.part, film.view, film.sex, age, film.tags)
