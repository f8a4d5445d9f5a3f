"""The films of an evaluation: the test patients of a cohort, or a folder with a CSV file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from clearfilm.errors import TrainingError
from clearfilm.vision.bundle import TrainingData
from training.cohort import Cohort, build, describe, films_digest, read_folder
from training.films import Decoder
from training.progress import Watcher


@dataclass(frozen=True, eq=False)
class Material:
    """Films to evaluate on.

    Parameters
    ----------
    cohort : Cohort
        Of a folder: one of its own, with all films in the part "test".
    digest : str
        Version of the cohort; of a folder, the digest that `clearfilm cohort build` would give it.
    scheme : {"patient", "paper", "none"}
        How the cohort was split; "none" for a folder.
    """

    cohort: Cohort
    digest: str
    scheme: Literal["patient", "paper", "none"]

    @property
    def test(self) -> list[int]:
        """Places of the films that the figures are about."""
        return self.cohort.of("test")

    @property
    def temporal(self) -> list[int]:
        """Places of the films of the newest time, if the cohort keeps them apart."""
        return self.cohort.of("temporal")

    @property
    def excluded(self) -> dict[str, int]:
        """Films that were left out before, by reason."""
        return self.cohort.manifest.excluded


def from_cohort(cohort: Cohort) -> Material:
    """The test patients of a cohort, and the temporal test; what was learned from is never evaluated.

    Raises
    ------
    TrainingError
        If the test has no films of one label.
    """
    _check_labels(cohort, "the cohort's part test", "build a cohort with more films")
    return Material(cohort, cohort.digest, cohort.manifest.scheme)


def from_folder(
    folder: Path,
    table: Path,
    decoder: Decoder,
    *,
    key: bytes,
    unknown_age: Literal["analyse", "refuse"],
    watcher: Watcher,
) -> Material:
    """All films of a folder that a cohort would take, see `training.cohort.read_folder`.

    Raises
    ------
    TrainingError
        If the table cannot be read, or no film of one label is left.
    """
    selection = read_folder(folder, table, decoder, unknown_age=unknown_age, watcher=watcher)
    with tempfile.TemporaryDirectory() as place:
        built = build(selection, Path(place) / "cohort", root=folder, source="folder", key=key)
    films = tuple(replace(film, part="test") for film in built.films)
    # Its own digest, which names its decoded films: those of the training film are somewhat larger.
    manifest = built.manifest.model_copy(update={"digest": films_digest(films)})
    whole = replace(built, manifest=manifest, films=films)
    _check_labels(whole, str(table), "add films of the other label")
    return Material(whole, built.digest, "none")


def is_held_back(material: Material, data: TrainingData) -> bool:
    """Whether the patients are known to have been kept out of a bundle's training and calibration."""
    if material.scheme != "patient":
        return False
    return material.digest == data.digest or material.cohort.manifest.split_key == data.split_key


def learned_from(material: Material, data: TrainingData) -> str:
    """What is known of whether the bundle has seen these patients, in one sentence."""
    if material.scheme == "none":
        return "The report cannot know which of these films the model learned from: use a cohort to be sure."
    if material.scheme == "paper":
        shared = material.cohort.manifest.shared_patients
        return f"Films were split at random, {shared} patients are in several parts: the figures flatter the model."
    if material.digest == data.digest:
        return "The model was trained on this very cohort; its test patients were held back from it."
    if is_held_back(material, data):
        return (
            "The model was trained on another version of the cohort, split by the same key: these test patients were "
            "held back from it."
        )
    return (
        "The model was trained on another cohort, split by another key or an unknown one: it may have learned from "
        "these test patients."
    )


def _check_labels(cohort: Cohort, what: str, remedy: str) -> None:
    films = [cohort.films[place] for place in cohort.of("test")]
    abnormal = sum(film.abnormal for film in films)
    if not 0 < abnormal < len(films):
        raise TrainingError(
            f"{what} has {len(films) - abnormal} normal and {abnormal} abnormal films that can be used (left out: "
            f"{describe(cohort.manifest.excluded)}): without both labels there is neither an AUC nor a specificity; "
            f"{remedy}"
        )
