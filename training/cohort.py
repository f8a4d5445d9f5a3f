"""A cohort: labelled films, split by patient, under one digest, with everything that was left out by reason.

Films come from a folder with a CSV file, or from the node's archive and its radiologists' reports.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import secrets
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from clearfilm.errors import NotAnalysable, StorageError, TrainingError
from clearfilm.files import fsync_folder, sha256, write_durably
from training.films import PICTURE_SUFFIXES, Decoder, prepared
from training.headers import read_facts
from training.progress import Silent, Watcher, watched
from training.split import Part, Scheme, key_id, part_of, person, pseudonym

FILMS: Final = "films.csv"
EXCLUDED: Final = "excluded.csv"
MANIFEST: Final = "manifest.json"
NORMAL, ABNORMAL = "normal", "abnormal"
PARTS: Final = get_args(Part)
ADULT_YEARS: Final = 18
_REQUIRED_COLUMNS = ("file", "patient_id", "label")
_FRONTAL = frozenset({"PA", "AP", ""})
_PER_YEAR: Final = {"Y": 1, "M": 12, "W": 52.18, "D": 365.25}
# Any size tells whether a film decodes.
_CHECKED_EDGE = 32


@dataclass(frozen=True)
class Film:
    """One film of a cohort; all values but the path are free of the patient's identity.

    Parameters
    ----------
    file : str
        Path below the cohort's root, with forward slashes.
    sha256 : str
        Of the file; for films of the archive, of the data set as received.
    patient : str
        Pseudonym by the installation's key.
    label : str
        "normal" (no finding) or "abnormal" (any finding).
    part : str
        See `training.split`.
    view, sex : str
        As stated; empty if unknown.
    age : str
        Whole years; empty if unknown.
    date : str
        YYYYMMDD of the study; empty if unknown.
    device, site : str
        Manufacturer with model, institution; empty if unknown.
    report : str
        Where the label came from: "report NUMBER, rule NAME"; empty for a CSV file's own labels.
    tags : str
        Findings or severity tags, joined by "|". For evaluation only, never for training.
    """

    file: str
    sha256: str
    patient: str
    label: str
    part: Part
    view: str = ""
    sex: str = ""
    age: str = ""
    date: str = ""
    device: str = ""
    site: str = ""
    report: str = ""
    tags: str = ""

    @property
    def abnormal(self) -> bool:
        """Whether the film has any finding."""
        return self.label == ABNORMAL


@dataclass(frozen=True)
class Candidate:
    """A film before the split; `patient` is still the real identity."""

    film: Film
    identity: str


@dataclass(frozen=True)
class Selection:
    """What a source offers: films that may be used, and those that may not with the reason."""

    candidates: list[Candidate]
    excluded: list[tuple[str, str]]


class Manifest(BaseModel):
    """Content of `manifest.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    digest: str
    """SHA-256 over file name, SHA-256, label and part of every film: the version of the cohort."""
    films_sha256: str
    """Of `films.csv`."""
    created: datetime
    root: str
    """Folder that the films' paths start from."""
    source: str
    """"folder" or "archive"."""
    scheme: Scheme
    split_key: str
    """Name of the key, not the key."""
    temporal_from: date | None
    counts: dict[str, dict[str, int]]
    """Part to patients, normal and abnormal films."""
    excluded: dict[str, int]
    """Reason to films."""
    shared_patients: int
    """Patients in more than one part: 0 unless the paper's random split was asked for."""


@dataclass(frozen=True)
class Cohort:
    """A verified cohort."""

    folder: Path
    root: Path
    manifest: Manifest
    films: tuple[Film, ...]

    @property
    def digest(self) -> str:
        """The version: 64 hexadecimal digits."""
        return self.manifest.digest

    def of(self, *parts: Part) -> list[int]:
        """Places of the films of some parts."""
        return [place for place, film in enumerate(self.films) if film.part in parts]

    def path(self, film: Film) -> Path:
        """Where a film's file is."""
        return self.root / film.file

    def counts(self) -> dict[str, dict[str, int]]:
        """Part to patients, normal and abnormal films."""
        return count(self.films)


def read_folder(
    folder: Path,
    table: Path,
    decoder: Decoder,
    *,
    unknown_age: Literal["analyse", "refuse"] = "analyse",
    watcher: Watcher | None = None,
) -> Selection:
    """Films of a folder with a CSV file.

    Parameters
    ----------
    folder : pathlib.Path
        JPEG, PNG or DICOM films.
    table : pathlib.Path
        UTF-8 with the columns file (below `folder`), patient_id and label ("normal" or "abnormal"); optional
        are view, sex, age, date, device, site and findings or tags. Other columns are passed over.
    decoder : Decoder
        Every film is decoded once, so that none fails later.
    unknown_age : {"analyse", "refuse"}
        As in the worker's configuration.
    watcher : Watcher, optional

    Returns
    -------
    Selection

    Raises
    ------
    TrainingError
        If the table cannot be read or lacks a column.
    """
    watcher = watcher or Silent()
    excluded: list[tuple[str, str]] = []
    rows: list[dict[str, str]] = []
    for row in _read_table(table):
        reason = _unfit(row, folder, unknown_age)
        if reason:
            excluded.append((row["file"], reason))
        else:
            rows.append(row)
    candidates = []
    decoded = prepared([folder / row["file"] for row in rows], _CHECKED_EDGE, decoder)
    for row, film in zip(rows, watched(decoded, "checking films", len(rows), watcher), strict=True):
        if isinstance(film, NotAnalysable):
            excluded.append((row["file"], film.reason))
        else:
            candidates.append(_candidate(row, folder))
    return Selection(candidates, excluded)


def _read_table(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{table} cannot be read as a CSV file in UTF-8 ({type(error).__name__})") from error
    missing = [name for name in _REQUIRED_COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise TrainingError(f"{table} has no films or lacks the column {', '.join(missing)}")
    return [{key: (value or "").strip() for key, value in row.items() if isinstance(key, str)} for row in rows]


def _unfit(row: Mapping[str, str], folder: Path, unknown_age: str) -> str | None:
    """Why a row cannot be used, as far as the table tells."""
    if not _is_inside(folder, row["file"]):
        return "the file is missing"
    if not row["patient_id"]:
        return "no patient ID"
    if row["label"] not in (NORMAL, ABNORMAL):
        return "the label is neither normal nor abnormal"
    if row.get("view", "").upper() not in _FRONTAL:
        return "not a frontal view"
    if row.get("date") and _day(row["date"]) is None:
        return "the date is not of the form 2026-03-01"
    age = _years(row.get("age", ""))
    if age is None and any(sign.isdigit() for sign in row.get("age", "")):
        return "the age is neither a number of years nor of the form 018Y"
    if age is None and unknown_age == "refuse":
        return "the patient's age is not stated"
    if age is not None and age < ADULT_YEARS:
        return "patient under 18"
    return None


def _is_inside(folder: Path, name: str) -> bool:
    """Whether a table's file is there, below the folder."""
    if not name or "\0" in name:
        return False
    path = (folder / name).resolve()
    return path.is_relative_to(folder.resolve()) and path.is_file()


def _years(text: str) -> int | None:
    """Whole years of a number or of a DICOM age (PS3.5 6.2, AS: days, weeks and months too); None: not readable."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in _PER_YEAR else (text, "Y")
    try:
        value = float(number) / _PER_YEAR[unit]
    except ValueError:
        return None
    return math.floor(value) if 0 <= value < 150 else None


def _day(text: str) -> str | None:
    """YYYYMMDD of a date with or without its separators; None: it is none."""
    try:
        return date.fromisoformat(text.replace("/", "-").replace(".", "-")).strftime("%Y%m%d")
    except ValueError:
        return None


def _candidate(row: Mapping[str, str], folder: Path) -> Candidate:
    path = folder / row["file"]
    stated = {} if path.suffix.lower() in PICTURE_SUFFIXES else read_facts(path)
    # The table knows better than the header.
    known = {name: row.get(name) or stated.get(name, "") for name in ("view", "sex", "age", "date", "device", "site")}
    age = _years(known["age"])
    film = Film(
        file=Path(row["file"]).as_posix(),
        sha256=sha256(path),
        patient="",
        label=row["label"],
        part="train",
        view=known["view"].upper(),
        sex=known["sex"].upper()[:1],
        age="" if age is None else str(age),
        date=_day(known["date"]) or "",
        device=known["device"],
        site=known["site"],
        tags=row.get("tags", "") or row.get("findings", ""),
    )
    return Candidate(film, row["patient_id"])


def build(
    selection: Selection,
    out: Path,
    *,
    root: Path,
    source: str,
    key: bytes,
    scheme: Scheme = "patient",
    temporal_from: date | None = None,
) -> Cohort:
    """Settle contradictions, split, and write a cohort.

    Parameters
    ----------
    selection : Selection
    out : pathlib.Path
        New folder; whole or absent after a crash.
    root : pathlib.Path
        What the films' paths start from.
    source : str
        "folder" or "archive".
    key : bytes
        From `training.split`.
    scheme : {"patient", "paper"}
        "paper": each film by itself at random, 70/20/10 with the 20 % halved between stop and calibrate. It lets
        patients into several parts, which flatters a model; for measuring by how much.
    temporal_from : datetime.date, optional
        Films of this day and later go to the part "temporal", if nothing of their patient was learned from;
        otherwise they are left out.

    Returns
    -------
    Cohort

    Raises
    ------
    TrainingError
        If `out` exists or no film is left.
    StorageError
        If the disk refused.
    """
    kept, excluded = _without_contradictions(selection)
    films = _split(kept, key, scheme)
    if temporal_from is not None:
        films, later = _hold_back_newest(films, temporal_from)
        excluded += later
    if not films:
        raise TrainingError(
            f"no film is left of {len(excluded)}: {describe(Counter(reason for _, reason in excluded))}"
        )
    films = sorted(films, key=lambda film: film.file)
    table = _dump(films)
    manifest = Manifest(
        digest=films_digest(films),
        films_sha256=hashlib.sha256(table).hexdigest(),
        created=datetime.now(UTC),
        root=str(root.resolve()),
        source=source,
        scheme=scheme,
        split_key=key_id(key),
        temporal_from=temporal_from,
        counts=count(films),
        excluded=dict(sorted(Counter(reason for _, reason in excluded).items())),
        shared_patients=len(_shared_patients(films)),
    )
    _write(out, manifest, table, excluded)
    return load(out)


def load(folder: Path, *, root: Path | None = None) -> Cohort:
    """Read a cohort and check it against its digest.

    Parameters
    ----------
    folder : pathlib.Path
    root : pathlib.Path, optional
        Where the films are now, if they were moved.

    Raises
    ------
    TrainingError
        If a file is missing or altered, or a patient is in two parts of a split by patient.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        table = (folder / FILMS).read_bytes()
    except (OSError, ValidationError) as error:
        raise TrainingError(f"there is no cohort at {folder}: {MANIFEST} or {FILMS} is missing or damaged") from error
    if hashlib.sha256(table).hexdigest() != manifest.films_sha256:
        raise TrainingError(f"cohort {folder} is altered: {FILMS} does not match the manifest; build it again")
    names = {field.name for field in fields(Film)}
    rows = csv.DictReader(io.StringIO(table.decode(), newline=""))
    films = tuple(Film(**{key: value for key, value in row.items() if key in names}) for row in rows)  # type: ignore[arg-type]
    if films_digest(films) != manifest.digest:
        raise TrainingError(f"cohort {folder} is altered: its films make another digest; build it again")
    shared = _shared_patients(films)
    if shared and manifest.scheme == "patient":
        raise TrainingError(f"cohort {folder}: {len(shared)} patients are in more than one part; build it again")
    return Cohort(folder=folder, root=root or Path(manifest.root), manifest=manifest, films=films)


def films_digest(films: Sequence[Film]) -> str:
    """SHA-256 over file name, SHA-256, label and part of every film, whatever their order."""
    lines = sorted(f"{film.file} {film.sha256} {film.label} {film.part}\n" for film in films)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def count(films: Sequence[Film]) -> dict[str, dict[str, int]]:
    """Patients, normal and abnormal films of each part that has any."""
    table = {}
    for part in PARTS:
        chosen = [film for film in films if film.part == part]
        if chosen:
            abnormal = sum(film.abnormal for film in chosen)
            patients = len({film.patient for film in chosen})
            table[part] = {"patients": patients, NORMAL: len(chosen) - abnormal, ABNORMAL: abnormal}
    return table


def describe(counts: Mapping[str, int]) -> str:
    """Counts in one line, largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} {reason}" for reason, number in ordered) or "none"


def _without_contradictions(selection: Selection) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """One candidate for each picture; none where copies disagree about label or patient."""
    excluded = list(selection.excluded)
    copies: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in selection.candidates:
        copies[candidate.film.sha256].append(candidate)
    kept = []
    for same in copies.values():
        if len({candidate.film.label for candidate in same}) > 1:
            excluded += [(candidate.film.file, "the same film with two labels") for candidate in same]
        elif len({person(candidate.identity) for candidate in same}) > 1:
            excluded += [(candidate.film.file, "the same film under two patients") for candidate in same]
        else:
            kept.append(same[0])
            excluded += [(candidate.film.file, "a copy of another film") for candidate in same[1:]]
    return kept, excluded


def _split(candidates: Sequence[Candidate], key: bytes, scheme: Scheme) -> list[Film]:
    return [
        replace(
            candidate.film,
            patient=pseudonym(person(candidate.identity), key),
            part=part_of(person(candidate.identity) if scheme == "patient" else candidate.film.sha256, key),
        )
        for candidate in candidates
    ]


def _hold_back_newest(films: Sequence[Film], first_day: date) -> tuple[list[Film], list[tuple[str, str]]]:
    boundary = first_day.strftime("%Y%m%d")
    learned = {film.patient for film in films if film.part != "test" and not film.date >= boundary}
    kept: list[Film] = []
    excluded = []
    for film in films:
        if film.date < boundary:
            kept.append(film)
        elif film.patient in learned:
            excluded.append((film.file, "newer than the temporal boundary, of a patient with older films"))
        else:
            kept.append(replace(film, part="temporal"))
    older = {film.patient for film in kept if film.part == "test"}
    # A test patient's newer films would put one person into two parts.
    excluded += [
        (film.file, "newer than the temporal boundary, of a patient with older films")
        for film in kept
        if film.part == "temporal" and film.patient in older
    ]
    return [film for film in kept if film.part != "temporal" or film.patient not in older], excluded


def _shared_patients(films: Sequence[Film]) -> set[str]:
    parts: dict[str, set[str]] = defaultdict(set)
    for film in films:
        parts[film.patient].add(film.part)
    return {patient for patient, inside in parts.items() if len(inside) > 1}


def _dump(films: Sequence[Film]) -> bytes:
    names = [field.name for field in fields(Film)]
    return dump_table(names, ([getattr(film, name) for name in names] for film in films))


def dump_table(names: Sequence[str], rows: Iterator[Sequence[object]]) -> bytes:
    """A CSV file in UTF-8 with line feeds."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return stream.getvalue().encode()


def _write(out: Path, manifest: Manifest, table: bytes, excluded: Sequence[tuple[str, str]]) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} exists already; choose another folder for the cohort")
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(8)}")
    content = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    try:
        write_durably(temporary / FILMS, [table])
        write_durably(temporary / EXCLUDED, [dump_table(("file", "reason"), iter(sorted(excluded)))])
        write_durably(temporary / MANIFEST, [content.encode()])
        temporary.rename(out)  # replaces an empty folder
        fsync_folder(out.parent)
    except OSError as error:
        raise StorageError(f"cannot write the cohort {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
