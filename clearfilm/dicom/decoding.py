"""From a stored file to a prepared film. Runs in a decoder child only, under its limits.

What the header claims is checked against itself, the bytes that are there and the codestream's own header
before a decoder allocates anything.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from clearfilm.dicom import codecs, pixels
from clearfilm.errors import NotAnalysable

MAXIMUM_PIXEL_BYTES: Final = 512 * 1024 * 1024
# PS3.5 8.2.1 and 8.2.3: the start-of-frame marker says which process made a JPEG codestream.
_FRAME_MARKERS: Final = {
    JPEGBaseline8Bit: {0xC0, 0xC1},
    JPEGExtended12Bit: {0xC0, 0xC1},
    JPEGLossless: {0xC3},
    JPEGLosslessSV1: {0xC3},
    JPEGLSLossless: {0xF7},
    JPEGLSNearLossless: {0xF7},
}
_ALL_FRAME_MARKERS = frozenset(set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7})
_END_OF_IMAGE = b"\xff\xd9"
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "
_J2K_START = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class Codestream:
    """What a compressed codestream says about itself."""

    rows: int
    columns: int
    precision: int
    components: int


def read(path: Path) -> Dataset:
    """Read a stored film.

    Parameters
    ----------
    path : pathlib.Path
        A DICOM file with file meta information.

    Raises
    ------
    NotAnalysable
        If pydicom cannot.
    """
    try:
        return dcmread(path)
    except MemoryError:
        raise
    except Exception as error:
        raise NotAnalysable(f"the file cannot be read ({type(error).__name__})") from error


def prepare(ds: Dataset, edge: int, display_edge: int = pixels.DISPLAY_EDGE) -> pixels.PreparedFilm:
    """Check, decode and prepare one film.

    Parameters
    ----------
    ds : pydicom.Dataset
        With file meta information.
    edge : int
        Side of the network's input, pixels.
    display_edge : int
        Longest side of the display picture, pixels.

    Returns
    -------
    clearfilm.dicom.pixels.PreparedFilm

    Raises
    ------
    NotAnalysable
        If the pixels cannot be trusted; the reason is in plain words.
    MemoryError
        If they need more memory than there is.
    """
    stored, decoder = decode(ds)
    try:
        display, padding, voi = pixels.render(stored, ds, display_edge)
    except (NotAnalysable, MemoryError):
        raise
    except Exception as error:
        raise _unreadable(error) from error
    facts = pixels.FilmFacts(
        rows=stored.shape[0],
        columns=stored.shape[1],
        bits_stored=int(ds.BitsStored),
        decoder=decoder,
        lossy=is_lossy(ds),
        voi=voi,
        padding_share=0.0 if padding is None else float(padding.mean()),
        burned_in_annotation=str(ds.get("BurnedInAnnotation", ""))[:16],
    )
    return pixels.PreparedFilm(display, pixels.network_input(display, edge, padding=padding), facts)


def decode(ds: Dataset, *, threads: int = 1) -> tuple[NDArray[np.unsignedinteger], str]:
    """Check and decode the pixels of one film.

    Parameters
    ----------
    ds : pydicom.Dataset
        With file meta information.
    threads : int
        For codecs that can use several.

    Returns
    -------
    stored : numpy.ndarray
        uint8 or uint16, shape ``(rows, columns)``: stored bit patterns, signed ones as two's complement.
    decoder : str
        "native" or the name of a plug-in.

    Raises
    ------
    NotAnalysable
        If the pixels cannot be trusted; the reason is in plain words.
    MemoryError
        If they need more memory than there is.
    """
    try:
        check_arithmetic(ds)
        return _stored(ds, threads)
    except (NotAnalysable, MemoryError):
        raise
    except Exception as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> NotAnalysable:
    """pydicom raises exceptions of ten kinds on damaged data sets."""
    return NotAnalysable(f"the pixel data cannot be read ({type(error).__name__})")


def check_arithmetic(ds: Dataset) -> None:
    """Check what the header claims about the pixels against itself and the bytes that are there.

    Nothing is allocated before this has passed.

    Parameters
    ----------
    ds : pydicom.Dataset
        With file meta information.

    Raises
    ------
    NotAnalysable
        If a claim is missing, not supported, beyond 512 MiB, or not what the pixel data hold.
    """
    rows, columns, allocated, stored = (
        _number(ds, keyword) for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored")
    )
    if rows < 1 or columns < 1:
        raise NotAnalysable("Rows or Columns is zero")
    if _number(ds, "NumberOfFrames", 1) != 1:
        raise NotAnalysable("multi-frame image")
    photometric = ds.get("PhotometricInterpretation")
    if _number(ds, "SamplesPerPixel") != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise NotAnalysable("colour image")
    if allocated not in (8, 16) or not 1 < stored <= allocated:
        raise NotAnalysable("unsupported bit depth")
    if _number(ds, "HighBit", stored - 1) != stored - 1 or _number(ds, "PixelRepresentation") not in (0, 1):
        raise NotAnalysable("unsupported pixel encoding")
    if "PixelData" not in ds or not isinstance(ds.PixelData, bytes) or not ds.PixelData:
        raise NotAnalysable("no pixel data")
    expected = rows * columns * allocated // 8
    if expected > MAXIMUM_PIXEL_BYTES:
        raise NotAnalysable("the image is too large")
    if UID(ds.file_meta.TransferSyntaxUID) in codecs.UNCOMPRESSED:
        # Some writers forget the padding to an even length.
        if not expected <= len(ds.PixelData) <= expected + expected % 2:
            raise NotAnalysable("the amount of pixel data differs from what the header says")
    else:
        _check_codestream(ds, rows, columns, allocated, stored)


def _number(ds: Dataset, keyword: str, default: int | None = None) -> int:
    value = ds.get(keyword, default)
    if value is None or isinstance(value, (str, bytes)) or not isinstance(value, (int, float)):
        raise NotAnalysable(f"{keyword} is missing or damaged")
    return int(value)


def _check_codestream(ds: Dataset, rows: int, columns: int, allocated: int, stored: int) -> None:
    uid = UID(ds.file_meta.TransferSyntaxUID)
    if uid not in codecs.CODECS:
        raise NotAnalysable("there is no decoder for its compression")
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    if uid == RLELossless:
        _check_rle(frame, allocated // 8)
        return
    if _END_OF_IMAGE not in frame[-16:]:
        raise NotAnalysable("the compressed pixel data are cut off")
    if uid in (JPEG2000, JPEG2000Lossless):
        stream = read_j2k_header(frame)
    else:
        stream = read_jpeg_header(frame, _FRAME_MARKERS[uid])
    if (stream.rows, stream.columns) != (rows, columns):
        raise NotAnalysable("the compressed image has another size than the header says")
    if stream.components != 1:
        raise NotAnalysable("colour image")
    if not stored <= stream.precision <= allocated:
        raise NotAnalysable("the compressed image has another bit depth than the header says")


def read_jpeg_header(stream: bytes, markers: set[int]) -> Codestream:
    """Size and depth from the start-of-frame segment of a JPEG or JPEG-LS codestream.

    Parameters
    ----------
    stream : bytes
    markers : set of int
        Start-of-frame markers that the transfer syntax allows.

    Raises
    ------
    NotAnalysable
        If there is none before the scan, or of another process.
    """
    damaged = NotAnalysable("the compressed pixel data are damaged")
    if stream[:2] != b"\xff\xd8":
        raise damaged
    offset = 2
    while offset + 4 <= len(stream) and stream[offset] == 0xFF:
        marker = stream[offset + 1]
        if marker == 0xFF:  # fill bytes, ISO 10918-1 B.1.1.2
            offset += 1
            continue
        (length,) = struct.unpack_from(">H", stream, offset + 2)
        if marker in _ALL_FRAME_MARKERS:
            if marker not in markers or length < 8 or offset + 10 > len(stream):
                raise damaged
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, offset + 4)
            return Codestream(rows, columns, precision, components)
        offset += 2 + length
    raise damaged


def read_j2k_header(stream: bytes) -> Codestream:
    """Size and depth from the SIZ segment of a JPEG 2000 codestream (ISO 15444-1 A.5.1).

    Raises
    ------
    NotAnalysable
        If it does not begin with one. A JP2 file around it is passed over: some devices write one.
    """
    start = stream.find(_J2K_START, 0, 4096) if stream.startswith(_JP2_SIGNATURE) else 0
    if start < 0 or stream[start : start + 4] != _J2K_START or len(stream) < start + 44:
        raise NotAnalysable("the compressed pixel data are damaged")
    right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
    (components, depth) = struct.unpack_from(">HB", stream, start + 40)
    return Codestream(bottom - top, right - left, (depth & 0x7F) + 1, components)


def _check_rle(frame: bytes, segments: int) -> None:
    """PS3.5 G.5: the number of segments and ascending offsets within the frame."""
    if len(frame) < 64:
        raise NotAnalysable("the compressed pixel data are damaged")
    count, *offsets = struct.unpack_from("<16I", frame)
    used = offsets[:segments]
    if count != segments or used[0] != 64 or used != sorted(set(used)) or used[-1] >= len(frame):
        raise NotAnalysable("the compressed pixel data are damaged")


def _stored(ds: Dataset, threads: int) -> tuple[NDArray[Any], str]:
    """Stored bit patterns, unsigned, and the name of the decoder."""
    unsigned = np.dtype(f"<u{ds.BitsAllocated // 8}")
    shape = (int(ds.Rows), int(ds.Columns))
    if UID(ds.file_meta.TransferSyntaxUID) in codecs.UNCOMPRESSED:
        return np.frombuffer(ds.PixelData, unsigned, count=shape[0] * shape[1]).reshape(shape), "native"
    stored, decoder = codecs.decode(ds, threads=threads)
    if stored.shape != shape or stored.dtype.itemsize != unsigned.itemsize:
        raise NotAnalysable("the compressed image has another size than the header says")
    return np.ascontiguousarray(stored).view(unsigned), decoder


def is_lossy(ds: Dataset) -> bool:
    """Whether the pixels went through lossy compression, by encoding or attribute (0028,2110)."""
    codec = codecs.CODECS.get(UID(ds.file_meta.TransferSyntaxUID))
    return ds.get("LossyImageCompression") == "01" or (codec is not None and codec.lossy)
