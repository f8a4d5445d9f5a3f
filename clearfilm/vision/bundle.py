"""Model bundles: weights, thresholds and preprocessing in one folder under one digest. Loads no torch."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clearfilm.dicom.preprocessing import PREPROCESSING_ID, preprocessing_hash
from clearfilm.errors import BundleError, StorageError
from clearfilm.files import sha256, write_durably

if TYPE_CHECKING:
    from torch import Tensor

DESCRIPTION: Final = "bundle.json"
WEIGHTS: Final = "weights.safetensors"
FEATURES: Final = "features.safetensors"
CARD: Final = "card.md"
MANIFEST: Final = "manifest.json"
FILES: Final = frozenset({DESCRIPTION, WEIGHTS, FEATURES, CARD})
CALIBRATION: Final = "calibration.json"
"""Scores of the calibration films, see `clearfilm.operating`; older bundles have none."""
LABELS: Final = ("no significant finding", "significant finding")

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Shown in DICOM attributes of VR LO, whose default repertoire is ASCII.
ShortText = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[ -\[\]-~]+$")]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


class Calibration(_Part):
    """Platt scaling: calibrated log-odds = slope × logit + intercept."""

    slope: float = Field(gt=0)
    intercept: float
    films: int = Field(ge=1)
    """Films that the two numbers were fitted on, none of them used in training."""


class OperatingPoint(_Part):
    """The score below which a film has no significant finding, and what is guaranteed about it.

    Exact binomial rule: with `confidence`, at most 1 - `sensitivity` of abnormal patients like those of the
    calibration score below `threshold`.
    """

    threshold: Share
    """Calibrated probability; a film at or above it has a significant finding."""
    sensitivity: Share
    confidence: Share
    abnormal_patients: int = Field(ge=1)
    """Calibration patients, one film each."""
    misses: int = Field(ge=0)
    """How many of them the rule allows below the threshold."""


class FeatureGate(_Part):
    """Films unlike the training films get no score, see `clearfilm.vision.unusual`."""

    threshold: float = Field(gt=0)
    """Films farther away than this are unusual: `margin` × the `quantile` of the calibration films' distances."""
    quantile: Share
    margin: float = Field(ge=1)
    """Room for films of other hospitals."""


class Metric(_Part):
    """One figure with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    normal: int = Field(ge=0)
    abnormal: int = Field(ge=0)


class TrainingData(_Part):
    """What the network learned from."""

    digest: Digest
    """SHA-256 over file name, SHA-256, label and part of every film."""
    description: str
    films: dict[str, int]
    """Films in each part: train, stop, calibrate, test."""
    split_key: str | None = None
    """Name of the key that split its patients; null: unknown, or they were not split by patient."""


class Description(_Part):
    """Content of `bundle.json`."""

    format: Literal[1] = 1
    name: ShortText
    version: ShortText
    note: ShortText
    """Origin and standing of the model; goes into every result."""
    created: date
    intended_use: str
    architecture: Literal["resnet152"]
    input_edge: int = Field(ge=32, le=2048, multiple_of=32)
    input_mean: float = 0.0
    """Subtracted from the input on its scale of 0 to 1 …"""
    input_std: float = Field(1.0, gt=0)
    """… and what it is divided by."""
    preprocessing_id: str
    preprocessing_hash: Digest
    labels: tuple[str, str] = LABELS
    calibration: Calibration
    operating_point: OperatingPoint | None
    """None: the bundle cannot say "no significant finding"."""
    evidence_threshold: float = Field(gt=0)
    """Log-odds of one cell of the map from which it is drawn."""
    feature_gate: FeatureGate
    training_data: TrainingData
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Parameters
    ----------
    folder : pathlib.Path
    digest : str
        SHA-256 of the canonical manifest: the identity of the model.
    description : Description
    """

    folder: Path
    digest: str
    description: Description

    def weights(self) -> dict[str, Tensor]:
        """The network's tensors by torchvision's `resnet152` keys; ``conv1.weight`` has one input channel."""
        from safetensors.torch import load_file

        return load_file(self.folder / WEIGHTS)

    def features(self) -> dict[str, NDArray[np.float32]]:
        """Tensors of the unusual-image gate, see `clearfilm.vision.unusual`."""
        from safetensors.numpy import load_file

        tensors: dict[str, NDArray[np.float32]] = load_file(self.folder / FEATURES)
        return tensors


def load_bundle(folder: Path, *, expected_digest: str | None = None) -> Bundle:
    """Verify a bundle and read its description.

    Parameters
    ----------
    folder : pathlib.Path
        A full bundle folder.
    expected_digest : str, optional
        Digest under which the bundle was registered.

    Returns
    -------
    Bundle

    Raises
    ------
    BundleError
        If a file is missing, altered or unknown, the description is not valid, the bundle was made for
        another preprocessing than this version's, or it is not the expected one.
    """
    digest = verify(folder)
    if expected_digest is not None and digest != expected_digest:
        raise BundleError(
            f"model bundle {folder} is not the registered one: its digest is {digest[:12]}…, "
            f"registered is {expected_digest[:12]}…"
        )
    return Bundle(folder=folder, digest=digest, description=read_description(folder))


def verify(folder: Path) -> str:
    """Check every file of a bundle against its manifest, and that this version can use it.

    Parameters
    ----------
    folder : pathlib.Path

    Returns
    -------
    str
        The bundle's digest.

    Raises
    ------
    BundleError
        See `load_bundle`.
    """
    recorded = _read_manifest(folder)
    missing = sorted(FILES - recorded.keys()) or [n for n in sorted(recorded) if not (folder / n).is_file()]
    if missing:
        raise BundleError(f"model bundle {folder} is incomplete: {missing[0]} is missing")
    surplus = sorted({path.name for path in folder.iterdir()} - recorded.keys() - {MANIFEST})
    if surplus:
        raise BundleError(f"model bundle {folder} is altered: {surplus[0]} is not in its manifest")
    for name, expected in sorted(recorded.items()):
        if _sha256(folder / name) != expected:
            raise BundleError(f"model bundle {folder} is altered: {name} does not match the manifest")
    description = read_description(folder)
    if (description.preprocessing_id, description.preprocessing_hash) != (PREPROCESSING_ID, preprocessing_hash()):
        raise BundleError(
            f"model bundle {folder} was made for preprocessing {description.preprocessing_id} "
            f"({description.preprocessing_hash[:12]}…), this version does {PREPROCESSING_ID} "
            f"({preprocessing_hash()[:12]}…)"
        )
    return _manifest_digest(recorded)


def read_description(folder: Path) -> Description:
    """Read `bundle.json` without checking the other files.

    Parameters
    ----------
    folder : pathlib.Path
        A bundle or a recipe.

    Returns
    -------
    Description

    Raises
    ------
    BundleError
        If the file is missing or not valid.
    """
    try:
        return Description.model_validate_json(_read(folder / DESCRIPTION))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise BundleError(f"model bundle {folder}: {DESCRIPTION} is not valid: {place}: {fault['msg']}") from error


def dump_description(description: Description) -> bytes:
    """The bytes of `bundle.json`: the same description gives the same bytes."""
    content = json.dumps(description.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return (content + "\n").encode()


def write_bundle(folder: Path, files: Mapping[str, bytes]) -> str:
    """Write a bundle so that it is whole or absent after a crash at any moment.

    Parameters
    ----------
    folder : pathlib.Path
        Must not exist yet, or hold the same bundle already.
    files : mapping of str to bytes
        Content of every name in `FILES`, and perhaps of `CALIBRATION`; the manifest is made here.

    Returns
    -------
    str
        The bundle's digest.

    Raises
    ------
    BundleError
        If the files do not make a usable bundle, or `folder` holds another one.
    StorageError
        If the disk refused.
    """
    if not FILES <= files.keys() <= FILES | {CALIBRATION}:
        raise BundleError(f"a model bundle has the files {', '.join(sorted(FILES))}, not {', '.join(sorted(files))}")
    digests = _file_digests(files)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    try:
        for name, content in {**files, MANIFEST: _dump_manifest(digests)}.items():
            write_durably(temporary / name, [content])
        digest = verify(temporary)
        _move(temporary, folder, digest)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digest


def copy_with(source: Path, into: Path, description: Description) -> str:
    """Write a copy of a bundle with another description, whole or absent; weights are copied, never read as a whole.

    Parameters
    ----------
    source : pathlib.Path
        A verified bundle.
    into : pathlib.Path
        See `write_bundle`.
    description : Description

    Returns
    -------
    str
        The new bundle's digest.

    Raises
    ------
    BundleError, StorageError
        See `write_bundle`.
    """
    digests = _read_manifest(source)
    content = dump_description(description)
    digests[DESCRIPTION] = hashlib.sha256(content).hexdigest()
    temporary = into.with_name(f".{into.name}.{secrets.token_hex(8)}")
    try:
        for name in digests.keys() - {DESCRIPTION}:
            with (source / name).open("rb") as file:
                write_durably(temporary / name, iter(lambda: file.read(1 << 20), b""))
        for name, own in ((DESCRIPTION, content), (MANIFEST, _dump_manifest(digests))):
            write_durably(temporary / name, [own])
        digest = verify(temporary)
        _move(temporary, into, digest)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digest


def names(folder: Path) -> list[str]:
    """The files of a bundle by its manifest. Raises BundleError."""
    return sorted(_read_manifest(folder))


def fault(folder: Path, expected_digest: str) -> str | None:
    """What is wrong with a registered bundle's files; None: they are unaltered."""
    try:
        found = verify(folder)
    except BundleError as error:
        return str(error)
    except OSError as error:
        return f"model bundle {folder} cannot be read: {error.strerror}"
    return None if found == expected_digest else f"{folder} holds another bundle, {found[:12]}"


def files_digest(files: Mapping[str, bytes]) -> str:
    """The digest that a bundle of these files has.

    Parameters
    ----------
    files : mapping of str to bytes
        Content of every name in `FILES`.

    Returns
    -------
    str
        64 hexadecimal digits: SHA-256 of the canonical manifest.
    """
    return _manifest_digest(_file_digests(files))


def _file_digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _manifest_digest(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(_dump_manifest(digests)).hexdigest()


def _dump_manifest(digests: Mapping[str, str]) -> bytes:
    content = {"files": dict(digests), "format": 1}
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _read_manifest(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise BundleError(f"there is no model bundle at {folder}")
    content = _read(folder / MANIFEST)
    try:
        files: dict[str, str] = json.loads(content)["files"]
        # One spelling only: the digest is that of the file itself.
        sound = content == _dump_manifest(files) and all(Path(name).name == name for name in files)
    except (ValueError, TypeError, KeyError):
        sound = False
    if not sound:
        raise BundleError(f"model bundle {folder} is altered: {MANIFEST} is not a manifest")
    return files


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"model bundle {path.parent} is incomplete: {path.name} is missing") from error
    except OSError as error:
        raise BundleError(f"model bundle {path.parent}: {path.name} cannot be read ({error.strerror})") from error


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise BundleError(f"model bundle {path.parent}: {path.name} cannot be read ({error.strerror})") from error


def _move(temporary: Path, folder: Path, digest: str) -> None:
    try:
        temporary.rename(folder)
        descriptor = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Another process may have written the same bundle at the same time.
        with suppress(BundleError):
            if verify(folder) == digest:
                return
        if folder.exists():
            raise BundleError(f"{folder} exists already and is not this model bundle") from error
        raise StorageError(f"cannot write model bundle {folder}: {error.strerror}") from error


def as_file(tensors: Mapping[str, Any]) -> bytes:
    """Tensors as the bytes of a safetensors file: the same tensors give the same bytes.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor or numpy.ndarray
        All of one kind.

    Returns
    -------
    bytes
    """
    if all(isinstance(tensor, np.ndarray) for tensor in tensors.values()):
        from safetensors.numpy import save as save_arrays

        return save_arrays(dict(tensors))
    from safetensors.torch import save as save_tensors

    return save_tensors(dict(tensors))
