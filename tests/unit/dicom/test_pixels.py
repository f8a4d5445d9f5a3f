"""From stored values to the display picture and the network's input."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from clearfilm.dicom import pixels, preprocessing
from clearfilm.errors import NotAnalysable


def attributes(bits: int = 12, **changes: Any) -> Dataset:
    ds = Dataset()
    ds.BitsAllocated = 8 if bits <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def ramp(top: int, dtype: type = np.uint16, edge: int = 256) -> NDArray[Any]:
    """Left black, right white."""
    return np.tile(np.linspace(0, top, edge).astype(dtype), (edge, 1))


def table(entries: list[int], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries), first, bits])
    item.add_new(0x00283006, "OW", np.array(entries, "<u2").tobytes())
    return item


def display(stored: NDArray[Any], ds: Dataset, edge: int = 1024) -> NDArray[np.uint8]:
    return pixels.render(stored, ds, edge)[0]


def test_a_window_maps_its_ends_to_black_and_white() -> None:
    grey = display(ramp(4095), attributes(WindowCenter=2000, WindowWidth=1000))
    levels = ramp(4095)[0]
    assert (grey[0, levels < 1490] == 0).all()
    assert (grey[0, levels > 2510] == 255).all()
    assert abs(int(grey[0, np.argmin(abs(levels.astype(int) - 2000))]) - 127) <= 2


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("slope", [1, 0.5])
def test_windows_agree_with_pydicom(function: str, slope: float) -> None:
    ds = attributes(
        WindowCenter=900, WindowWidth=1200, RescaleSlope=slope, RescaleIntercept=-24, VOILUTFunction=function
    )
    stored = ramp(4095)
    expected = apply_voi_lut(apply_modality_lut(stored, ds), ds)
    span = 4095 * slope
    np.testing.assert_allclose(display(stored, ds), (expected + 24) / span * 255, atol=1)


def test_a_negative_rescale_slope_turns_the_film_around_once() -> None:
    ds = attributes(RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096)
    grey = display(ramp(4095), ds)
    assert grey[0, 0] > 250
    assert grey[0, -1] < 5


def test_the_first_of_several_windows_counts() -> None:
    ds = attributes(WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    alone = attributes(WindowCenter=1000, WindowWidth=500)
    np.testing.assert_array_equal(display(ramp(4095), ds), display(ramp(4095), alone))


@pytest.mark.parametrize(("center", "width"), [("900", "0"), (None, None), ("", "5"), ("100000", "3"), ("-5000", "10")])
def test_a_window_that_shows_nothing_is_passed_over(center: str | None, width: str | None) -> None:
    grey, _, voi = pixels.render(ramp(4095), attributes(WindowCenter=center, WindowWidth=width), 1024)
    assert voi == "percentiles"
    assert grey.min() == 0
    assert grey.max() == 255


def test_a_voi_table_is_preferred_to_a_window() -> None:
    ds = attributes(WindowCenter=2000, WindowWidth=4000, VOILUTSequence=[table([0, 0, 4095, 4095], 1000, 12)])
    grey, _, voi = pixels.render(ramp(4095), ds, 1024)
    assert voi == "table"
    assert set(np.unique(grey)) == {0, 255}
    assert (grey[0, ramp(4095)[0] < 1001] == 0).all()


def test_a_long_table_of_8_bit_entries_does_not_wrap_around() -> None:
    ds = attributes(VOILUTSequence=[table(list(np.linspace(0, 255, 4096).astype(int)), 0, 8)])
    assert (np.diff(display(ramp(4095), ds)[0].astype(int)) >= 0).all()


def test_a_modality_table_is_applied() -> None:
    ds = attributes(ModalityLUTSequence=[table(list(range(4095, -1, -1)), 0, 16)], bits=12)
    ds.ModalityLUTSequence[0].add_new(0x00283004, "LO", "US")
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    grey = display(ramp(4095), ds)
    assert grey[0, 0] == 255
    assert grey[0, -1] == 0


@pytest.mark.parametrize("shape", [None, "INVERSE"])
def test_monochrome1_is_inverted_once(shape: str | None) -> None:
    upright = attributes(WindowCenter=2048, WindowWidth=4096)
    inverse = attributes(WindowCenter=2048, WindowWidth=4096, PhotometricInterpretation="MONOCHROME1")
    if shape:
        inverse.PresentationLUTShape = shape
    stored = ramp(4095)
    np.testing.assert_allclose(display(stored, inverse), 255 - display(stored, upright).astype(int), atol=1)


def test_signed_values_are_in_order() -> None:
    stored = (ramp(4095).astype(np.int32) - 2048).astype(np.int16)
    grey = display(stored.view(np.uint16), attributes(16, PixelRepresentation=1, WindowCenter=0, WindowWidth=4096))
    assert (np.diff(grey[0].astype(int)) >= 0).all()
    assert grey[0, 0] == 0
    assert grey[0, -1] == 255


def test_bits_above_bits_stored_do_not_count() -> None:
    stored = ramp(4095)
    ds = attributes(WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_array_equal(display(stored | 0x5000, ds), display(stored, ds))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_no_part_of_the_percentiles(photometric: str) -> None:
    stored = ramp(4095)
    stored[:, :128] = 4000
    stored[:, 128:] = np.linspace(1000, 1400, 128)
    ds = attributes(PhotometricInterpretation=photometric, PixelPaddingValue=3990, PixelPaddingRangeLimit=4010)
    grey, padding, _ = pixels.render(stored, ds, 1024)
    assert (grey[:, :126] == 0).all()
    assert np.ptp(grey[:, 130:]) > 240
    assert padding is not None
    assert padding[:, :128].all()
    assert not padding[:, 128:].any()


def test_a_padding_value_that_does_not_occur_changes_nothing() -> None:
    stored = ramp(3000)
    with_padding, padding, _ = pixels.render(stored, attributes(PixelPaddingValue=4095), 1024)
    np.testing.assert_array_equal(with_padding, display(stored, attributes()))
    assert padding is None


def test_a_film_of_padding_only_is_not_analysable() -> None:
    with pytest.raises(NotAnalysable, match="nothing but padding"):
        display(np.full((300, 300), 7, np.uint16), attributes(PixelPaddingValue=7))


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (400, 150)),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (200, 300)),
        ({"PixelAspectRatio": [2, 1]}, (400, 150)),
        ({"PixelSpacing": [0, 0]}, (400, 300)),
        ({"PixelSpacing": [0.1, 0.1004]}, (400, 300)),
        ({}, (400, 300)),
    ],
)
def test_pixels_become_square(changes: dict[str, Any], shape: tuple[int, int]) -> None:
    stored = np.random.default_rng(1).integers(0, 4096, (400, 300)).astype(np.uint16)
    assert display(stored, attributes(**changes)).shape == shape


@pytest.mark.parametrize("spacing", [["", "1"], "0.1", ["nan", "1"], [-1, 1]])
def test_a_damaged_spacing_is_passed_over(spacing: Any) -> None:
    ds = attributes()
    ds.add_new(0x00181164, "DS", None)
    ds["ImagerPixelSpacing"]._value = spacing
    assert pixels.pixel_aspect(ds) == 1


def test_an_absurd_pixel_shape_is_not_analysable() -> None:
    with pytest.raises(NotAnalysable, match="pixel shape"):
        pixels.pixel_aspect(attributes(PixelAspectRatio=[1, 100]))


def test_a_large_film_shrinks_to_the_display_edge() -> None:
    assert display(ramp(4095, edge=2500), attributes(), 512).shape == (512, 512)


def test_eight_bits_without_a_window_stay_as_they_are() -> None:
    stored = ramp(200, np.uint8)
    np.testing.assert_array_equal(display(stored, attributes(8)), stored)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 700), st.integers(1, 700), st.integers(1, 256))
def test_percentiles_equal_those_of_numpy(seed: int, rows: int, columns: int, levels: int) -> None:
    film = np.random.default_rng(seed).integers(0, levels, (rows, columns), dtype=np.uint8)
    found = pixels._percentiles(np.bincount(film.ravel(), minlength=256))
    np.testing.assert_allclose(found, np.percentile(film, (0.5, 99.5)), atol=1e-6)


def test_network_input_is_the_published_formula(shared: Path) -> None:
    film = cv2.imread(str(shared / "data/cxr/nih/00000679_000.jpg"), cv2.IMREAD_GRAYSCALE)
    assert film is not None
    low, high = np.percentile(film, (0.5, 99.5))
    scaled = np.clip((film - np.float32(low)) * np.float32(255 / (high - low)), 0, 255)
    expected = np.rint(cv2.resize(scaled, (224, 224), interpolation=cv2.INTER_AREA))
    np.testing.assert_array_equal(pixels.network_input(film, 224), expected)


@pytest.mark.parametrize("film", [np.zeros((300, 400), np.uint8), np.full((5, 9), 255, np.uint8)])
def test_a_constant_film_has_a_network_input(film: NDArray[np.uint8]) -> None:
    assert pixels.network_input(film, 224).shape == (224, 224)


def test_padding_is_no_part_of_the_network_percentiles() -> None:
    film = ramp(255, np.uint8)
    film[:200] = 0
    padding = np.zeros(film.shape, np.bool_)
    padding[:200] = True
    np.testing.assert_array_equal(
        pixels.network_input(film, 256, padding=padding)[200:], pixels.network_input(ramp(255, np.uint8), 256)[200:]
    )


def test_the_preprocessing_hash_is_fixed() -> None:
    # A change here means that every bundle has to be trained and fitted again, under a new id.
    assert preprocessing.PREPROCESSING_ID == "percentile-stretch-1"
    assert preprocessing.preprocessing_hash() == "6d9fa17b712c401997825ad3323617514b6b772dd47aa40a23927a993041122f"
