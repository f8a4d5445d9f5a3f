"""From a recipe, small enough for a repository, to a full model bundle: base weights plus what is ours."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from clearfilm.errors import BundleError
from clearfilm.vision.base_weights import JOINED_SHA256, load_base_weights
from clearfilm.vision.bundle import (
    CARD,
    DESCRIPTION,
    FEATURES,
    WEIGHTS,
    Bundle,
    Digest,
    as_file,
    files_digest,
    load_bundle,
    names,
    verify,
    write_bundle,
)

RECIPE: Final = "recipe.json"
HEAD: Final = "head.safetensors"
DIGEST_PREFIX: Final = 16


class Recipe(BaseModel):
    """Content of `recipe.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    base_sha256: Digest = JOINED_SHA256
    bundle_digest: Digest


def resolve_bundle(configured: Path, data_folder: Path) -> Path:
    """The full bundle folder that a configured path stands for; assembles a recipe at its first use.

    Parameters
    ----------
    configured : pathlib.Path
        A bundle folder or a recipe folder.
    data_folder : pathlib.Path
        Assembled bundles go into ``models/`` below it.

    Returns
    -------
    pathlib.Path
        Not verified here if it exists already: `clearfilm.vision.bundle.load_bundle` does that.

    Raises
    ------
    BundleError
        If there is nothing at `configured`, or the recipe cannot be assembled.
    """
    if not (configured / RECIPE).is_file():
        if not configured.is_dir():
            raise BundleError(f"there is no model bundle at {configured}; check model.bundle in the configuration")
        return configured
    into = kept_folder(data_folder, read_recipe(configured).bundle_digest)
    return into if into.is_dir() else assemble(configured, into)


def kept_folder(data_folder: Path, digest: str) -> Path:
    """Where the node keeps the bundle of a digest."""
    return data_folder / "models" / digest[:DIGEST_PREFIX]


def keep_bundle(folder: Path, data_folder: Path) -> Bundle:
    """Copy a bundle below the data folder, so that its origin can be moved or deleted; whole or absent.

    Parameters
    ----------
    folder : pathlib.Path
        A full bundle.
    data_folder : pathlib.Path
        The copy is in ``models/`` below it, under the bundle's digest.

    Returns
    -------
    Bundle
        The verified copy.

    Raises
    ------
    BundleError
        If the bundle must not be used, or the copy that is there already was altered.
    StorageError
        If the disk refused.
    """
    digest = verify(folder)
    into = kept_folder(data_folder, digest)
    if not into.is_dir():
        into.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bundle(into, {name: (folder / name).read_bytes() for name in names(folder)})
    return load_bundle(into, expected_digest=digest)


def assemble(recipe_folder: Path, into: Path) -> Path:
    """Join the base weights and a recipe's own files into a full bundle.

    Parameters
    ----------
    recipe_folder : pathlib.Path
        Holds `recipe.json`, `head.safetensors` and the bundle's other files.
    into : pathlib.Path
        Folder to write; must not exist yet, or hold this bundle already.

    Returns
    -------
    pathlib.Path
        `into`.

    Raises
    ------
    BundleError
        If base weights or recipe are missing or altered, or the result is not the recorded bundle.
    StorageError
        If the disk refused.
    """
    recipe = read_recipe(recipe_folder)
    files = {WEIGHTS: joined_weights(recipe_folder / HEAD)}
    for name in (DESCRIPTION, CARD, FEATURES):
        try:
            files[name] = (recipe_folder / name).read_bytes()
        except OSError as error:
            raise BundleError(f"model recipe {recipe_folder}: {name} cannot be read ({error.strerror})") from error
    digest = files_digest(files)
    if digest != recipe.bundle_digest:
        raise BundleError(
            f"model recipe {recipe_folder} is altered: it makes bundle {digest[:12]}…, not {recipe.bundle_digest[:12]}…"
        )
    into.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(into, files)
    return into


def joined_weights(head: Path) -> bytes:
    """Base weights with a head file's tensors in place of their own, as a safetensors file in float32.

    Parameters
    ----------
    head : pathlib.Path
        Tensors of the last stage and the linear layer by their keys, any float type.

    Returns
    -------
    bytes
        The same on every machine.

    Raises
    ------
    BundleError
        If the base weights are missing or altered, or the head file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        ours = load_file(head)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"model recipe {head.parent}: {head.name} is missing or damaged") from error
    return as_file({**load_base_weights(), **{key: tensor.float() for key, tensor in ours.items()}})


def read_recipe(folder: Path) -> Recipe:
    """Read `recipe.json`.

    Parameters
    ----------
    folder : pathlib.Path

    Returns
    -------
    Recipe

    Raises
    ------
    BundleError
        If the file is missing or not valid, or names other base weights than this version's.
    """
    try:
        recipe = Recipe.model_validate_json((folder / RECIPE).read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleError(f"model recipe {folder}: {RECIPE} is missing or not valid") from error
    if recipe.format != 1 or recipe.base_sha256 != JOINED_SHA256:
        raise BundleError(f"model recipe {folder} needs other base weights than this version reads")
    return recipe
