"""Decoders: the self test, and a golden film that two decoders have to read alike."""

import base64
import copy
from pathlib import Path

import cv2
import imagecodecs
import jpeg_ls
import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import JPEG2000, UID, JPEG2000Lossless

from clearfilm.dicom import codecs
from clearfilm.errors import NotAnalysable

PAIRS = [(uid, other) for uid, codec in codecs.CODECS.items() for other in codec.decoders[1:]]


@pytest.fixture(scope="module")
def golden(shared: Path) -> NDArray[np.uint16]:
    """A real film in 12 bits."""
    film = cv2.imread(str(shared / "data/cxr/nih/00000679_000.jpg"), cv2.IMREAD_GRAYSCALE)
    assert film is not None
    smooth = cv2.GaussianBlur(film.astype(np.float32), (5, 5), 0)
    return np.rint(smooth * 15.9 + 17).astype(np.uint16)


def encode(film: NDArray[np.uint16], uid: UID) -> bytes:
    bits = 8 * film.itemsize if film.itemsize == 1 else 12
    number = uid.rpartition(".")[2]
    if number in ("50", "51"):
        return bytes(imagecodecs.jpeg8_encode(film, level=95, bitspersample=bits))
    if number in ("57", "70"):
        predictor = 1 if number == "70" else 6
        return bytes(imagecodecs.jpeg8_encode(film, lossless=True, predictor=predictor, bitspersample=bits))
    if number in ("80", "81"):
        return bytes(jpeg_ls.encode_array(film, lossy_error=0 if number == "80" else 3))
    if number in ("90", "91"):
        ratios = None if number == "90" else [10]
        return encode_array(film, bits_stored=bits, photometric_interpretation=2, compression_ratios=ratios)
    return bytes(RLELosslessEncoder.encode(film, **vars_of(film, bits)))


def vars_of(film: NDArray[np.uint16], bits: int) -> dict[str, object]:
    return {
        "rows": film.shape[0],
        "columns": film.shape[1],
        "samples_per_pixel": 1,
        "bits_allocated": 8 * film.itemsize,
        "bits_stored": bits,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": 1,
    }


def data_set(film: NDArray[np.uint16], uid: UID) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid
    ds.Rows, ds.Columns = film.shape
    ds.BitsAllocated = 8 * film.itemsize
    ds.BitsStored = 8 if film.itemsize == 1 else 12
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelData = encapsulate([encode(film, uid)])
    ds["PixelData"].is_undefined_length = True
    return ds


def test_every_transfer_syntax_of_the_table_proves_itself() -> None:
    assert set(codecs.accepted_transfer_syntaxes()) == {*codecs.UNCOMPRESSED, *codecs.CODECS}


def test_deflated_big_endian_and_high_throughput_syntaxes_are_not_accepted() -> None:
    refused = {f"1.2.840.10008.1.2.{end}" for end in ("1.99", "2", "4.94", "4.95", "4.201", "4.202", "4.203")}
    assert not refused & set(codecs.accepted_transfer_syntaxes())


@pytest.mark.parametrize("uid", codecs.CODECS)
def test_a_decoder_that_fails_does_not_pass_the_self_test(uid: UID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(codecs.SAMPLES, uid, base64.b85encode(b"no codestream").decode())
    assert not codecs.self_test(uid)


def test_a_decoder_that_gives_other_pixels_does_not_pass_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    lossless, near_lossless = UID("1.2.840.10008.1.2.4.80"), UID("1.2.840.10008.1.2.4.81")
    monkeypatch.setitem(codecs.SAMPLES, lossless, codecs.SAMPLES[near_lossless])
    assert not codecs.self_test(lossless)


@pytest.mark.parametrize(("uid", "other"), PAIRS)
def test_two_decoders_read_the_golden_film_alike(uid: UID, other: str, golden: NDArray[np.uint16]) -> None:
    film = (golden >> 4).astype(np.uint8) if uid.endswith(".50") else golden
    ds = data_set(film, uid)
    first, name = codecs.decode(ds)
    second, _ = codecs.decode(ds, other)
    assert name != other
    # ISO 10918-2 lets decoders of lossy JPEG differ by rounding; all else is exact.
    tolerance = 1 if uid.endswith((".50", ".91")) else 0
    assert np.abs(first.astype(int) - second).max() <= tolerance


@pytest.mark.parametrize("uid", codecs.CODECS)
def test_the_golden_film_comes_back(uid: UID, golden: NDArray[np.uint16]) -> None:
    film = (golden >> 4).astype(np.uint8) if uid.endswith(".50") else golden
    decoded, _ = codecs.decode(data_set(film, uid))
    difference = np.abs(decoded.astype(int) - film)
    if codecs.CODECS[uid].lossy:
        assert difference.mean() < 0.006 * film.max()
    else:
        assert difference.max() == 0


@pytest.mark.parametrize("name", ["dicom-test-fil__SC1_JPLY", "pydicom__JPEG-lossy.dcm"])
def test_twelve_bit_extended_jpeg_is_read(name: str, shared: Path) -> None:
    ds = dcmread(shared / "data/dicom-zoo/files" / name)
    stored, decoder = codecs.decode(ds)
    assert decoder == "imagecodecs"
    assert 255 < stored.max() < 4096


def test_lossless_jpeg_of_the_zoo_is_read_alike_by_two_decoders(shared: Path) -> None:
    found = 0
    for path in (shared / "data/dicom-zoo/files").iterdir():
        try:
            ds = dcmread(path)
            uid, frames = UID(ds.file_meta.TransferSyntaxUID), int(ds.get("NumberOfFrames", 1))
        except Exception:  # not all of the zoo are DICOM files
            continue
        if uid not in codecs.CODECS or codecs.CODECS[uid].lossy or ds.get("SamplesPerPixel") != 1 or frames > 1:
            continue
        first, _ = codecs.decode(ds)
        for other in codecs.CODECS[uid].decoders[1:]:
            np.testing.assert_array_equal(first, codecs.decode(ds, other)[0])
            found += 1
    assert found >= 10


def test_what_no_decoder_reads_is_not_analysable() -> None:
    ds = data_set(np.zeros((8, 8), np.uint16), UID("1.2.840.10008.1.2.4.70"))
    ds.PixelData = encapsulate([b"\xff\xd8 nonsense \xff\xd9"])
    with pytest.raises(NotAnalysable, match="cannot be decoded"):
        codecs.decode(ds)


@pytest.mark.parametrize("uid", [JPEG2000Lossless, JPEG2000])
def test_several_threads_read_jpeg_2000_as_one_does(uid: UID, golden: NDArray[np.uint16]) -> None:
    ds = data_set(golden, uid)
    quick, name = codecs.decode(ds, threads=2)
    assert name == "imagecodecs"
    np.testing.assert_array_equal(quick, codecs.decode(ds)[0])


def test_jpeg_2000_whose_header_says_something_else_is_left_to_the_careful_decoder(golden: NDArray[np.uint16]) -> None:
    ds = data_set(golden, JPEG2000Lossless)
    for keyword, value in (("BitsStored", 11), ("PixelRepresentation", 1)):
        other = copy.deepcopy(ds)
        setattr(other, keyword, value)
        stored, name = codecs.decode(other, threads=2)
        assert name == codecs.CODECS[JPEG2000Lossless].decoders[0]
        np.testing.assert_array_equal(stored, codecs.decode(other)[0])


def test_jpeg_2000_that_is_cut_off_is_refused_by_several_threads_too(golden: NDArray[np.uint16]) -> None:
    ds = data_set(golden, JPEG2000Lossless)
    stream = encode(golden, JPEG2000Lossless)
    ds.PixelData = encapsulate([stream[: len(stream) // 2]])
    with pytest.raises(NotAnalysable):
        codecs.decode(ds, threads=2)
