"""What the header claims is compared with what is there before anything is decoded."""

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from clearfilm.dicom import decoding
from clearfilm.dicom.codecs import CODECS
from clearfilm.errors import NotAnalysable

IMPLICIT, LOSSLESS, J2K = "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"
RLE, BASELINE = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50"
PICTURE = (np.arange(64 * 48).reshape(64, 48) % 4096).astype(np.uint16)


def film(syntax: str = IMPLICIT, data: bytes | None = None, **changes: Any) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.Rows, ds.Columns = PICTURE.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    if syntax == IMPLICIT:
        ds.PixelData = PICTURE.tobytes() if data is None else data
    else:
        assert data is not None
        ds.PixelData = encapsulate([data])
        ds["PixelData"].is_undefined_length = True
    return ds


def jpeg(picture: Any = PICTURE, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(picture, **{"lossless": True, "predictor": 1, **options}))


def reason(ds: Dataset) -> str:
    with pytest.raises(NotAnalysable) as caught:
        decoding.prepare(ds, 224)
    return caught.value.reason


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Rows": 0}, "Rows or Columns is zero"),
        ({"Rows": [64, 0]}, "Rows is missing or damaged"),
        ({"Columns": None}, "Columns is missing or damaged"),
        ({"NumberOfFrames": 2}, "multi-frame image"),
        ({"SamplesPerPixel": 3}, "colour image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour image"),
        ({"BitsAllocated": 32}, "unsupported bit depth"),
        ({"BitsAllocated": 1, "BitsStored": 1}, "unsupported bit depth"),
        ({"BitsStored": 17}, "unsupported bit depth"),
        ({"HighBit": 15}, "unsupported pixel encoding"),
        ({"PixelRepresentation": 2}, "unsupported pixel encoding"),
        ({"Rows": 65535, "Columns": 65535}, "the image is too large"),
        ({"Rows": 63}, "the amount of pixel data differs from what the header says"),
        ({"Rows": 192}, "the amount of pixel data differs from what the header says"),
        (
            {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
            "the amount of pixel data differs from what the header says",
        ),
    ],
)
def test_claims_that_do_not_fit_are_named(changes: dict[str, Any], expected: str) -> None:
    assert reason(film(**changes)) == expected


def test_missing_pixel_data_are_named() -> None:
    ds = film()
    del ds.PixelData
    assert reason(ds) == "no pixel data"


def test_an_odd_amount_of_pixels_may_be_padded_or_not() -> None:
    odd = {"Rows": 3, "Columns": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    for data in (b"123456789", b"123456789\0"):
        assert decoding.prepare(film(data=data, **odd), 224).facts.rows == 3


@pytest.mark.parametrize(
    ("syntax", "data"), [(LOSSLESS, jpeg()), (J2K, encode_array(PICTURE, bits_stored=12, photometric_interpretation=2))]
)
def test_the_size_in_the_codestream_has_to_agree(syntax: str, data: bytes) -> None:
    assert decoding.prepare(film(syntax, data), 224).facts.columns == 48
    other = "the compressed image has another size than the header says"
    assert reason(film(syntax, data, Rows=48, Columns=64)) == other
    assert reason(film(syntax, data, Rows=65535, Columns=2000)) == other


def test_the_depth_in_the_codestream_has_to_agree() -> None:
    shallow = film(LOSSLESS, jpeg(PICTURE.astype(np.uint8)))
    assert reason(shallow) == "the compressed image has another bit depth than the header says"


def test_colour_inside_the_codestream_is_refused() -> None:
    colour = np.zeros((64, 48, 3), np.uint8)
    ds = film(BASELINE, jpeg(colour, lossless=False, predictor=None), BitsAllocated=8, BitsStored=8, HighBit=7)
    assert reason(ds) == "colour image"


def test_another_process_than_the_transfer_syntax_says_is_refused() -> None:
    ds = film(BASELINE, jpeg(PICTURE.astype(np.uint8)), BitsAllocated=8, BitsStored=8, HighBit=7)
    assert reason(ds) == "the compressed pixel data are damaged"


@pytest.mark.parametrize("syntax", [LOSSLESS, J2K])
def test_a_codestream_without_its_end_is_refused(syntax: str) -> None:
    data = jpeg() if syntax == LOSSLESS else encode_array(PICTURE, bits_stored=12, photometric_interpretation=2)
    assert reason(film(syntax, data[: len(data) // 2])) == "the compressed pixel data are cut off"


@pytest.mark.parametrize(
    "header",
    [
        (1, 64),
        (2, 128, 64),
        (2, 64, 64),
        (2, 64, 4_000_000_000),
        (15, *range(64, 79)),
        (0,),
    ],
)
def test_rle_segments_that_cannot_be_are_refused(header: tuple[int, ...]) -> None:
    data = struct.pack("<16I", *header, *[0] * (16 - len(header))) + b"\x81\x00" * 100
    assert reason(film(RLE, data)) == "the compressed pixel data are damaged"


def test_a_file_that_is_no_dicom_is_not_analysable(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(b"no DICOM here")
    with pytest.raises(NotAnalysable, match="cannot be read"):
        decoding.read(path)


def test_every_codestream_header_of_the_zoo_is_understood(shared: Path) -> None:
    found = 0
    for path in (shared / "data/dicom-zoo/files").iterdir():
        try:
            ds = dcmread(path)
            syntax = UID(ds.file_meta.TransferSyntaxUID)
        except Exception:  # not all of the zoo are DICOM files
            continue
        plain = ds.get("SamplesPerPixel") == 1 and ds.get("NumberOfFrames") in (None, 1) and "PixelData" in ds
        if syntax in CODECS and plain and "embedded" not in path.name:
            decoding.check_arithmetic(ds)
            found += 1
    assert found >= 25
