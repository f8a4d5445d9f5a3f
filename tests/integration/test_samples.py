"""The shipped sample films: reproducible, valid, small, and judged as their table says."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType

import pytest
from pydicom import dcmread, dcmwrite

from clearfilm.config import Config
from clearfilm.dicom.codecs import accepted_transfer_syntaxes
from clearfilm.errors import NotAnalysable
from worker.decoder import DecoderPool

FOLDER = Path(__file__).resolve().parent.parent.parent / "samples"
FILES = sorted(FOLDER.glob("*.dcm"))


@pytest.fixture(scope="module")
def make() -> ModuleType:
    specification = importlib.util.spec_from_file_location("samples_make", FOLDER / "make.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their module up by name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "samples_make", module)
        specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(Config()) as pool:
        yield pool


def test_samples_are_made_again_byte_for_byte(make: ModuleType, shared: Path) -> None:
    published = make.read_published(shared / "data/cxr")
    assert [path.stem for path in FILES] == [sample.name for sample in make.SAMPLES]
    for sample in make.SAMPLES:
        stream = BytesIO()
        dcmwrite(stream, make.make(sample, shared / "data/cxr", published), enforce_file_format=True)
        assert stream.getvalue() == (FOLDER / f"{sample.name}.dcm").read_bytes(), sample.name


def test_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 6_000_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_sample_ends_as_its_table_says(path: Path, make: ModuleType, pool: DecoderPool) -> None:
    (expected,) = (sample.expected for sample in make.SAMPLES if sample.name == path.stem)
    assert dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID in accepted_transfer_syntaxes()
    try:
        pool.submit(path).result(timeout=60)
    except NotAnalysable as error:
        assert expected == f"not analysed: {error.reason}"  # noqa: PT017 - both ends are right ones
    else:
        assert expected == "decision"


@pytest.mark.peer
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dciodvfy_finds_no_error_in_a_sample(path: Path) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dicom3tools is not installed")
    said = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    assert "Error" not in said.stdout + said.stderr
