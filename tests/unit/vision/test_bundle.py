import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from clearfilm.errors import BundleError
from clearfilm.vision.bundle import (
    CARD,
    DESCRIPTION,
    FEATURES,
    FILES,
    MANIFEST,
    WEIGHTS,
    Description,
    dump_description,
    load_bundle,
    read_description,
    verify,
    write_bundle,
)
from tests import bundle_factories


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle_factories.write(tmp_path / "model")
    return tmp_path / "model"


def files(description: Description) -> dict[str, bytes]:
    return {DESCRIPTION: dump_description(description), CARD: b"# Test\n", WEIGHTS: b"", FEATURES: b""}


def test_written_bundle_loads_with_what_was_put_in(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.description == bundle_factories.description()
    assert bundle.digest == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def test_same_content_has_the_same_digest_anywhere(folder: Path, tmp_path: Path) -> None:
    assert bundle_factories.write(tmp_path / "elsewhere") == verify(folder)


@pytest.mark.parametrize("name", sorted(FILES | {MANIFEST}))
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"incomplete: {name} is missing"):
        load_bundle(folder)


@pytest.mark.parametrize("name", sorted(FILES))
def test_altered_file_is_named(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(BundleError, match=f"altered: {name}"):
        load_bundle(folder)


def test_file_that_is_not_in_the_manifest_is_named(folder: Path) -> None:
    (folder / "more.pkl").write_bytes(b"")
    with pytest.raises(BundleError, match=r"altered: more\.pkl"):
        load_bundle(folder)


def test_manifest_cannot_be_spelled_in_another_way(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    with pytest.raises(BundleError, match=MANIFEST):
        load_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": 3}', b'{"files":{"../x":"0"},"format":1}', b"\xff"])
def test_nonsense_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_no_folder_is_said_to_be_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no model bundle"):
        load_bundle(tmp_path / "none")


def test_bundle_for_another_preprocessing_is_refused(tmp_path: Path) -> None:
    other = bundle_factories.description().model_copy(update={"preprocessing_hash": "1" * 64})
    with pytest.raises(BundleError, match="preprocessing"):
        write_bundle(tmp_path / "model", files(other))
    assert list(tmp_path.iterdir()) == []


def test_bundle_other_than_the_registered_one_is_refused(folder: Path) -> None:
    assert load_bundle(folder, expected_digest=verify(folder)).folder == folder
    with pytest.raises(BundleError, match="not the registered one"):
        load_bundle(folder, expected_digest="0" * 64)


def test_bundle_may_have_no_operating_point(tmp_path: Path) -> None:
    without = bundle_factories.description().model_copy(update={"operating_point": None})
    write_bundle(tmp_path / "model", files(without))
    assert load_bundle(tmp_path / "model").description.operating_point is None


def test_files_that_make_no_bundle_leave_nothing_behind(tmp_path: Path) -> None:
    broken = {**files(bundle_factories.description()), DESCRIPTION: b"{}"}
    with pytest.raises(BundleError):
        write_bundle(tmp_path / "model", broken)
    del broken[DESCRIPTION]
    with pytest.raises(BundleError):
        write_bundle(tmp_path / "model", broken)
    assert list(tmp_path.iterdir()) == []


def test_writing_the_same_bundle_twice_is_no_error_and_another_one_is(folder: Path) -> None:
    bundle_factories.write(folder)
    with pytest.raises(BundleError, match="exists already"):
        bundle_factories.write(folder, version="2")
    assert read_description(folder).version == "1"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("note", ["", "x" * 65, "示范", "a\\b", "line\nbreak"])
def test_texts_that_do_not_fit_a_dicom_long_string_are_refused(note: str) -> None:
    values = bundle_factories.description().model_dump()
    with pytest.raises(ValidationError):
        Description.model_validate({**values, "note": note})


def test_unknown_key_is_named(folder: Path) -> None:
    values = json.loads((folder / DESCRIPTION).read_bytes())
    (folder / DESCRIPTION).write_text(json.dumps({**values, "treshold": 1}))
    with pytest.raises(BundleError, match="treshold"):
        read_description(folder)


def test_verification_loads_no_torch(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from clearfilm.vision.bundle import load_bundle;"
        "load_bundle(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
