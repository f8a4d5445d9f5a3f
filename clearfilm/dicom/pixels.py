"""From stored values to the picture that people see and to the network's input.

The order is that of PS3.4 N.2: padding on stored values, modality LUT, VOI LUT, one inversion for
MONOCHROME1, square pixels. Everything up to the inversion is one look-up table over all values that
can be stored, so that a film of any size costs one table access a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

from clearfilm.dicom.preprocessing import HIGH_PERCENT, LOW_PERCENT, STATISTICS_EDGE
from clearfilm.errors import NotAnalysable

DISPLAY_EDGE: Final = 1024

# Spacings closer than this are rounding, not geometry.
_SQUARE_TOLERANCE = 0.01
_WHITE = 65535
# A window that squeezes 99 % of a film into less than this share of the grey scale shows nothing.
_FLAT_SHARE = 0.02


@dataclass(frozen=True)
class FilmFacts:
    """What the decoder found out about a film.

    Parameters
    ----------
    rows, columns : int
        As stored, before any scaling.
    bits_stored : int
    decoder : str
        What decoded the pixel data: "native" or the name of a plug-in.
    lossy : bool
        Whether the pixels went through lossy compression (transfer syntax or attribute 0028,2110).
    voi : str
        Where the display window came from: "table", "window", "stored values" or "percentiles".
    padding_share : float
        Share of the pixels that hold padding, 0 to 1.
    burned_in_annotation : str
        Burned In Annotation (0028,0301); noted, never a reason to refuse.
    """

    rows: int
    columns: int
    bits_stored: int
    decoder: str
    lossy: bool
    voi: str
    padding_share: float
    burned_in_annotation: str


@dataclass(frozen=True)
class PreparedFilm:
    """A film that is ready for the network and for people.

    Parameters
    ----------
    display : numpy.ndarray
        uint8, shape ``(rows, columns)``, square pixels, bright = dense.
    network_input : numpy.ndarray
        uint8, shape ``(edge, edge)``: `network_input` of the display picture.
    facts : FilmFacts
    """

    display: NDArray[np.uint8]
    network_input: NDArray[np.uint8]
    facts: FilmFacts


@dataclass(frozen=True)
class Presentation:
    """How a viewer shows a film in full depth: as `render` does at first, then with a window of the reader's.

    Parameters
    ----------
    table : numpy.ndarray
        uint16, grey (0 black, 65535 white) for each value that can be stored, lowest first; MONOCHROME1 is
        inverted already.
    low, high : float
        The window, in stored values: the table changes between them.
    slope, intercept : float
        From stored values to the units that windows are given in; 1 and 0 where that is no straight line.
    padding : tuple of int or None
        First and last stored value that mean no film.
    aspect : float
        Height of a pixel divided by its width.
    voi : str
        Where the window came from, see `FilmFacts`.
    """

    table: NDArray[np.uint16]
    low: float
    high: float
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    aspect: float
    voi: str


@dataclass(frozen=True)
class _Rendering:
    """The look-up table from stored bit patterns to grey (0 to 65535), and where its window came from."""

    table: NDArray[np.uint16]
    voi: str


def network_input(
    display: NDArray[np.uint8], edge: int, *, padding: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Window a display picture by its percentiles and stretch it to the network's square.

    The aspect ratio is given up on purpose: NIH published the films that the network learned from
    stretched to squares.

    Parameters
    ----------
    display : numpy.ndarray
        uint8, shape ``(rows, columns)``, bright = dense.
    edge : int
        Side of the result, pixels.
    padding : numpy.ndarray, optional
        bool, shape of `display`; True where there is no film. Left out of the percentiles.

    Returns
    -------
    numpy.ndarray
        uint8, shape ``(edge, edge)``; 0 at or below the 0.5 % percentile, 255 at or above the 99.5 % one.
    """
    step = max(1, -(-max(display.shape) // STATISTICS_EDGE))
    sample = display[::step, ::step]
    if padding is not None:
        sample = sample[~padding[::step, ::step]]
    low, high = _percentiles(np.bincount(sample.ravel(), minlength=256))
    levels = np.arange(256, dtype=np.float32)
    scaled = (levels - np.float32(low)) * np.float32(255.0 / max(high - low, 1e-6))
    windowed = cv2.LUT(display, np.clip(scaled, 0, 255))
    squared = cv2.resize(windowed, (edge, edge), interpolation=cv2.INTER_AREA)
    return np.rint(squared).astype(np.uint8)


def render(
    stored: NDArray[np.unsignedinteger], ds: Dataset, display_edge: int = DISPLAY_EDGE
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None, str]:
    """Turn stored values into the picture that people see.

    Parameters
    ----------
    stored : numpy.ndarray
        uint8 or uint16, shape ``(rows, columns)``: stored bit patterns, signed ones as two's complement.
    ds : pydicom.Dataset
        The film's attributes; its header arithmetic has been checked.
    display_edge : int
        Longest side of the result, pixels. A smaller film is not enlarged.

    Returns
    -------
    display : numpy.ndarray
        uint8, shape ``(rows, columns)`` with square pixels, bright = dense; padding is 0.
    padding : numpy.ndarray or None
        bool, shape of `display`; None if the film has no padding.
    voi : str
        Where the window came from, see `FilmFacts`.

    Raises
    ------
    NotAnalysable
        If the shape of a pixel is implausible, or the whole film is padding.
    """
    padding_table = _padding_table(ds)
    padding = None
    if padding_table is not None:
        padding = cv2.LUT(stored, padding_table).view(np.bool_)
        if not padding.any():
            padding = None
    counts = _histogram(stored, padding)
    if not counts.any():
        raise NotAnalysable("the film holds nothing but padding")
    rendering = _rendering(ds, counts)
    table = rendering.table
    if padding_table is not None:
        # After the inversion: padding is black in both photometric interpretations.
        table = np.where(padding_table.view(np.bool_), np.uint16(0), table)
    size = _display_size(stored.shape, pixel_aspect(ds), display_edge)
    grey = cv2.resize(cv2.LUT(stored, table), size, interpolation=cv2.INTER_AREA)
    display: NDArray[Any] = cv2.convertScaleAbs(grey, alpha=255 / _WHITE)
    if padding is not None:
        shrunk = cv2.resize(padding.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        padding = shrunk.view(np.bool_)
    return display, padding, rendering.voi


def presentation(stored: NDArray[np.unsignedinteger], ds: Dataset) -> Presentation:
    """What a viewer needs beside the stored values.

    Parameters
    ----------
    stored : numpy.ndarray
        uint8 or uint16, shape ``(rows, columns)``: stored bit patterns, signed ones as two's complement.
    ds : pydicom.Dataset
        The film's attributes; its header arithmetic has been checked.

    Returns
    -------
    Presentation
    """
    padding = _padding_table(ds)
    outside = None if padding is None else cv2.LUT(stored, padding).view(np.bool_)
    counts = _histogram(stored, outside)
    rendering = _rendering(ds, counts)
    patterns = _stored_values(ds, 1 << ds.BitsStored)
    order = np.argsort(patterns, kind="stable")
    values, table = patterns[order], rendering.table[order]
    slope, intercept = _line(values, ds)
    low, high = _stated_window(ds, slope, intercept) if rendering.voi == "window" else _support(values, table)
    paddings = values[padding[order] == 1] if padding is not None else values[:0]
    try:
        aspect = pixel_aspect(ds)
    except NotAnalysable:
        aspect = 1.0
    return Presentation(
        table=table,
        low=low,
        high=high,
        slope=slope,
        intercept=intercept,
        padding=(int(paddings[0]), int(paddings[-1])) if len(paddings) else None,
        aspect=aspect,
        voi=rendering.voi,
    )


def _line(values: NDArray[np.int32], ds: Dataset) -> tuple[float, float]:
    """Slope and intercept of the modality LUT; 1 and 0 where it is a table."""
    modality = _modality(values, ds)
    slope = float(modality[-1] - modality[0]) / float(values[-1] - values[0])
    intercept = float(modality[0]) - slope * float(values[0])
    is_straight = slope != 0 and np.allclose(values * slope + intercept, modality, rtol=1e-6, atol=abs(slope) * 1e-3)
    return (slope, intercept) if is_straight else (1.0, 0.0)


def _stated_window(ds: Dataset, slope: float, intercept: float) -> tuple[float, float]:
    """Ends of the first window, in stored values (PS3.3 C.11.2.1.2)."""
    centre, width = float(_first(ds.WindowCenter)), float(_first(ds.WindowWidth))
    if str(ds.get("VOILUTFunction") or "LINEAR") == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-3)
    ends = sorted((end - intercept) / slope for end in (centre - width / 2, centre + width / 2))
    return ends[0], ends[1]


def _support(values: NDArray[np.int32], table: NDArray[np.uint16]) -> tuple[float, float]:
    """Where a grey scale rises or falls: the last value of its first grey, and the first value of its last one."""
    changes = np.flatnonzero(np.diff(table.astype(np.int64)))
    if not len(changes):
        return float(values[0]), float(values[-1])
    return float(values[changes[0]]), float(values[changes[-1] + 1])


def pixel_aspect(ds: Dataset) -> float:
    """Height of a pixel divided by its width (PS3.3 C.7.6.3.1.7).

    Parameters
    ----------
    ds : pydicom.Dataset
        Values that are missing, malformed or zero are passed over.

    Returns
    -------
    float
        Exactly 1 where the difference is mere rounding or nothing is stated.

    Raises
    ------
    NotAnalysable
        If one side is more than four times the other.
    """
    for keyword in ("ImagerPixelSpacing", "PixelSpacing", "PixelAspectRatio"):
        try:
            vertical, horizontal = (float(value) for value in ds[keyword].value)
        except Exception:  # noqa: BLE001, S112 - any value may be damaged in ways that pydicom does not foresee
            continue
        if not (np.isfinite([vertical, horizontal]).all() and vertical > 0 and horizontal > 0):
            continue
        ratio = vertical / horizontal
        if not 0.25 <= ratio <= 4:
            raise NotAnalysable("implausible pixel shape")
        return ratio if abs(ratio - 1) > _SQUARE_TOLERANCE else 1.0
    return 1.0


def _display_size(shape: tuple[int, ...], aspect: float, display_edge: int) -> tuple[int, int]:
    """Width and height of the display picture; the finer axis shrinks, nothing is ever enlarged."""
    height = shape[0] * min(1.0, aspect)
    width = shape[1] / max(1.0, aspect)
    scale = min(1.0, display_edge / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _histogram(stored: NDArray[np.unsignedinteger], padding: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Counts of the stored bit patterns in a subsample of the film, without padding."""
    step = max(1, -(-max(stored.shape) // STATISTICS_EDGE))
    sample = stored[::step, ::step]
    if padding is not None:
        sample = sample[~padding[::step, ::step]]
    return np.bincount(sample.ravel(), minlength=_patterns(stored.dtype))


def _patterns(dtype: np.dtype[np.unsignedinteger]) -> int:
    return 1 << (8 * dtype.itemsize)


def _percentiles(counts: NDArray[np.int64]) -> tuple[float, float]:
    """The two percentiles of a histogram, interpolated as numpy.percentile does."""
    total = int(counts.sum())
    if total == 0:
        return 0.0, float(len(counts) - 1)
    cumulative = np.cumsum(counts)

    def at(percent: float) -> float:
        place = (total - 1) * percent / 100
        below = int(np.searchsorted(cumulative, int(place), side="right"))
        above = int(np.searchsorted(cumulative, min(int(place) + 1, total - 1), side="right"))
        return below + (above - below) * (place - int(place))

    return at(LOW_PERCENT), at(HIGH_PERCENT)


def _stored_values(ds: Dataset, patterns: int) -> NDArray[np.int32]:
    """The value of each bit pattern; bits above Bits Stored are no part of it (PS3.5 8.1.1)."""
    mask = (1 << ds.BitsStored) - 1
    values = np.arange(patterns, dtype=np.int32) & mask
    if ds.PixelRepresentation == 1:
        sign = 1 << (ds.BitsStored - 1)
        values = (values ^ sign) - sign
    return values


def _padding_table(ds: Dataset) -> NDArray[np.uint8] | None:
    """For each bit pattern 1 if it is padding (PS3.3 C.7.5.1.1.2); None if the film states none."""
    try:
        first = int(ds.PixelPaddingValue)
        last = int(ds.get("PixelPaddingRangeLimit", first))
    except Exception:  # noqa: BLE001 - absent, empty or damaged: the film has no padding
        return None
    mask = (1 << ds.BitsStored) - 1
    values = _stored_values(ds, 1 << ds.BitsAllocated)
    if ds.PixelRepresentation == 0:
        # Some write the value under the wrong sign: the bits are what counts.
        first, last = first & mask, last & mask
    low, high = min(first, last), max(first, last)
    return ((values >= low) & (values <= high)).astype(np.uint8)


def _rendering(ds: Dataset, counts: NDArray[np.int64]) -> _Rendering:
    values = _stored_values(ds, len(counts))
    modality = _modality(values, ds)
    scaled, voi = _voi_table(modality, ds), "table"
    if scaled is None or _is_flat(scaled, counts):
        scaled, voi = _voi_window(modality, ds), "window"
    if scaled is None or _is_flat(scaled, counts):
        scaled, voi = _without_voi(values, modality, counts, ds)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        # Presentation LUT Shape INVERSE says the same thing once more (PS3.3 C.8.11.3.1.2).
        scaled = 1 - scaled
    return _Rendering(np.rint(np.clip(scaled, 0, 1) * _WHITE).astype(np.uint16), voi)


def _modality(values: NDArray[np.int32], ds: Dataset) -> NDArray[np.float64]:
    try:
        modality = np.asarray(apply_modality_lut(values, ds), dtype=np.float64)
    except Exception:  # noqa: BLE001 - a damaged table: the stored values are still a picture
        return values.astype(np.float64)
    usable = np.isfinite(modality).all() and np.ptp(modality) > 0
    return modality if usable else values.astype(np.float64)


def _voi_table(modality: NDArray[np.float64], ds: Dataset) -> NDArray[np.float64] | None:
    """Output of the first VOI LUT on a scale of 0 to 1; None if there is no usable one.

    Not pydicom's `apply_voi`: it counts the entries in the type of the entries, so that a table of 8-bit
    entries wraps around after 256 of them.
    """
    try:
        item = ds.VOILUTSequence[0]
        count, first, _ = (int(value) for value in item.LUTDescriptor)
        data = item.LUTData
        if isinstance(data, bytes):
            data = np.frombuffer(data, "<u2" if len(data) >= 2 * (count or 65536) else "u1")
        entries = np.asarray(data, dtype=np.float64)[: count or 65536]
        output = entries[np.clip(np.rint(modality) - first, 0, len(entries) - 1).astype(np.int64)]
    except Exception:  # noqa: BLE001 - absent or damaged: as if there were none
        return None
    low, high = entries.min(), entries.max()
    return (output - low) / (high - low) if high > low else None


def _voi_window(modality: NDArray[np.float64], ds: Dataset) -> NDArray[np.float64] | None:
    """Output of the first window on a scale of 0 to 1; None if there is no usable one."""
    if "WindowCenter" not in ds or "WindowWidth" not in ds:
        return None
    try:
        # Two inputs far outside give the ends of the output range, whatever the function.
        far = 1e3 * (np.abs(modality).max() + abs(float(_first(ds.WindowWidth))) + 1)
        with np.errstate(over="ignore"):
            output = apply_windowing(np.append(modality, [-far, far]), ds)
    except Exception:  # noqa: BLE001 - zero width, no number, unknown function: as if there were none
        return None
    # pydicom turns the output around where Rescale Slope is negative; a window never does.
    black, white = output[-2:]
    if not np.isfinite(output).all() or black == white:
        return None
    return (output[:-2] - black) / (white - black)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, MultiValue) else value


def _is_flat(scaled: NDArray[np.float64], counts: NDArray[np.int64]) -> bool:
    """Whether a window leaves nothing of a film that has something in it."""
    levels = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.int64)
    low, high = _percentiles(np.bincount(levels, weights=counts, minlength=256).astype(np.int64))
    return high - low < 255 * _FLAT_SHARE


def _without_voi(
    values: NDArray[np.int32], modality: NDArray[np.float64], counts: NDArray[np.int64], ds: Dataset
) -> tuple[NDArray[np.float64], str]:
    if ds.BitsStored <= 8:
        return (values - values.min()) / max(1, int(np.ptp(values))), "stored values"
    order = np.argsort(modality, kind="stable")
    low, high = _percentiles(counts[order])
    low, high = modality[order[int(low)]], modality[order[int(np.ceil(high))]]
    return (modality - low) / max(high - low, 1e-9), "percentiles"
