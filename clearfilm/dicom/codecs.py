"""Transfer syntaxes that this node takes: those with a decoder that has just proved itself.

The table names the decoders in the order of trial. pylibjpeg-libjpeg is not among them, even where it is
installed: it has decoded lossless JPEG wrongly without an error (pylibjpeg-libjpeg issue 90).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from clearfilm import children
from clearfilm.dicom.codec_samples import SAMPLE_EDGE, SAMPLES
from clearfilm.errors import NotAnalysable

UNCOMPRESSED: Final = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
_SELF_TEST_TIMEOUT_SECONDS = 60
# Any bytes that no marker begins with.
_FILLER = hashlib.sha512(b"filler").digest().replace(b"\xff", b"\x7f")


@dataclass(frozen=True)
class Codec:
    """How one compressed transfer syntax is decoded.

    Parameters
    ----------
    decoders : tuple of str
        pydicom's names of the plug-ins, first choice first.
    lossy : bool
    """

    decoders: tuple[str, ...]
    lossy: bool = False


CODECS: Final[dict[UID, Codec]] = {
    JPEGBaseline8Bit: Codec(("imagecodecs", "gdcm", "pillow"), lossy=True),
    JPEGExtended12Bit: Codec(("imagecodecs",), lossy=True),
    JPEGLossless: Codec(("imagecodecs", "gdcm")),
    JPEGLosslessSV1: Codec(("imagecodecs", "gdcm")),
    JPEGLSLossless: Codec(("pyjpegls", "gdcm")),
    JPEGLSNearLossless: Codec(("pyjpegls", "gdcm"), lossy=True),
    JPEG2000Lossless: Codec(("pylibjpeg", "gdcm")),
    JPEG2000: Codec(("pylibjpeg", "gdcm"), lossy=True),
    RLELossless: Codec(("pylibjpeg", "pydicom")),
}


@functools.cache
def accepted_transfer_syntaxes() -> tuple[str, ...]:
    """Transfer syntaxes to accept at negotiation, uncompressed ones first.

    The self test runs in a child process, so that the listener neither loads a decoder nor dies with one.
    Asked once per process.

    Returns
    -------
    tuple of str
        Each compressed one has just decoded a picture of known pixels.
    """
    test = subprocess.run(  # noqa: S603 - our own module, no shell
        children.command(__name__),
        env=children.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_SELF_TEST_TIMEOUT_SECONDS,
        check=False,  # a decoder that kills the child takes only itself and those after it away
    )
    proven = test.stdout.decode("ascii").split()
    return tuple(str(uid) for uid in (*UNCOMPRESSED, *(uid for uid in CODECS if uid in proven)))


def decode(ds: Dataset, decoder: str | None = None, *, threads: int = 1) -> tuple[NDArray[Any], str]:
    """Decode the first frame of compressed, monochrome pixel data.

    Parameters
    ----------
    ds : pydicom.Dataset
        With file meta information; its header arithmetic has been checked.
    decoder : str, optional
        Only this one; otherwise all of the table in turn.
    threads : int
        JPEG 2000 can use several: a film of 3000 x 2500 takes a second of one core.

    Returns
    -------
    stored : numpy.ndarray
        Shape ``(rows, columns)``, 8 or 16 bits, signed as Pixel Representation says.
    decoder : str
        The one that did it.

    Raises
    ------
    NotAnalysable
        If no decoder could, or the codestream ends before the picture does.
    """
    uid = UID(ds.file_meta.TransferSyntaxUID)
    if uid not in CODECS:
        raise NotAnalysable("there is no decoder for its compression")
    if threads > 1 and decoder is None and uid in (JPEG2000Lossless, JPEG2000):
        quick = _with_threads(ds, threads)
        if quick is not None:
            return quick, "imagecodecs"
    _add_imagecodecs()
    for name in (decoder,) if decoder else CODECS[uid].decoders:
        try:
            stored, _ = get_decoder(uid).as_array(ds, index=0, raw=True, decoding_plugin=name)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112 - decoders raise what they like; the next one may manage
            continue
        if uid in DECODER_DEPENDENCIES and _ends_early(ds, stored):
            raise NotAnalysable("the compressed pixel data are cut off")
        return stored, name
    raise NotAnalysable("the compressed pixel data cannot be decoded")


def _with_threads(ds: Dataset, threads: int) -> NDArray[Any] | None:
    """The stored values by OpenJPEG with several threads; None where header and codestream differ, or it fails.

    Such cases are for pydicom, which knows what to make of them.
    """
    import imagecodecs
    from pydicom.pixels.utils import get_j2k_parameters

    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    stream = get_j2k_parameters(frame)
    said = (ds.BitsStored, ds.PixelRepresentation == 1)
    if (stream.get("precision"), stream.get("is_signed")) != said:
        return None
    try:
        stored: NDArray[Any] = imagecodecs.jpeg2k_decode(frame, numthreads=threads)
    except imagecodecs.Jpeg2kError:
        return None
    expected = np.dtype(f"{'i' if said[1] else 'u'}{ds.BitsAllocated // 8}")
    return stored if stored.dtype == expected and stored.shape == (ds.Rows, ds.Columns) else None


def _ends_early(ds: Dataset, stored: NDArray[Any]) -> bool:
    """Whether a JPEG codestream holds less than its picture.

    Every JPEG decoder at hand fills the rest with grey and says nothing. Decoded again with some bytes put
    before the end-of-image marker, a whole codestream gives the same picture, a short one another.
    """
    import imagecodecs

    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    end = frame.rfind(b"\xff\xd9")
    try:
        again = imagecodecs.jpeg8_decode(frame[:end] + _FILLER + frame[end:])
    except imagecodecs.Jpeg8Error:
        return False
    return not np.array_equal(again, stored.view(again.dtype) if again.itemsize == stored.itemsize else stored)


def self_test(uid: UID) -> bool:
    """Whether the decoders of a transfer syntax reproduce a picture of known pixels."""
    try:
        stored, _ = decode(_sample(uid))
    except NotAnalysable:
        return False
    rows, columns = np.mgrid[0:SAMPLE_EDGE, 0:SAMPLE_EDGE]
    expected = (rows // 8 * 4 + columns // 8) * 256 + 100
    if uid == JPEGBaseline8Bit:
        expected >>= 4
    tolerance = 24 if CODECS[uid].lossy else 0
    return bool(np.abs(stored.astype(np.int64) - expected).max() <= tolerance)


def _sample(uid: UID) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid
    ds.Rows = ds.Columns = SAMPLE_EDGE
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored = (8, 8) if uid == JPEGBaseline8Bit else (16, 12)
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    ds.PixelData = encapsulate([base64.b85decode(SAMPLES[uid])])
    ds["PixelData"].is_undefined_length = True
    return ds


def _add_imagecodecs() -> None:
    """Let pydicom use libjpeg-turbo by way of imagecodecs: alone here in reading 12-bit extended JPEG."""
    for uid in DECODER_DEPENDENCIES:
        decoder = get_decoder(uid)
        if "imagecodecs" not in decoder.available_plugins:
            decoder.add_plugin("imagecodecs", (__name__, "decode_with_imagecodecs"))


# What pydicom asks of a decoder plug-in.
DECODER_DEPENDENCIES: Final = dict.fromkeys(
    (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1), ("numpy", "imagecodecs>=2026.3.6")
)


def is_available(uid: str) -> bool:
    """Whether the imagecodecs plug-in serves a transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def decode_with_imagecodecs(source: bytes, runner: DecodeRunner) -> bytes:
    """pydicom decoder plug-in for every kind of JPEG that CODECS names."""
    # Not at the top: the listener imports this module and must stay small.
    import imagecodecs

    stored = imagecodecs.jpeg8_decode(source)
    expected = np.dtype(f"u{runner.bits_allocated // 8}")
    if stored.dtype.itemsize > expected.itemsize:
        raise ValueError("more bits in the codestream than allocated")
    return stored.astype(expected, copy=False).tobytes()


if __name__ == "__main__":
    for codec_uid in CODECS:
        if self_test(codec_uid):
            sys.stdout.write(codec_uid + "\n")
            sys.stdout.flush()
