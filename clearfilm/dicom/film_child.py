"""Program of the decoder children that serve readers: one stored file in, its pixels in full depth out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clearfilm.child_side import Answer, serve
from clearfilm.dicom import decoding, pixels


def read(request: dict[str, Any]) -> Answer:
    """Read and decode; nothing is judged, since readers may see every film.

    Parameters
    ----------
    request : dict
        Key ``path``.

    Returns
    -------
    clearfilm.child_side.Answer
        What `clearfilm.dicom.full_depth.FullFilm` says; then the grey table and the stored values.

    Raises
    ------
    NotAnalysable
        If the pixels cannot be trusted.
    """
    ds = decoding.read(Path(request["path"]))
    stored, decoder = decoding.decode(ds)
    shown = pixels.presentation(stored, ds)
    values = {
        "rows": stored.shape[0],
        "columns": stored.shape[1],
        "allocated": int(ds.BitsAllocated),
        "bits": int(ds.BitsStored),
        "signed": ds.PixelRepresentation == 1,
        "photometric": str(ds.PhotometricInterpretation),
        "low": shown.low,
        "high": shown.high,
        "slope": shown.slope,
        "intercept": shown.intercept,
        "padding": shown.padding,
        "aspect": shown.aspect,
        "voi": shown.voi,
        "lossy": decoding.is_lossy(ds),
        "decoder": decoder,
    }
    return Answer(values, [shown.table.astype("<u2", copy=False).data, stored.data])


if __name__ == "__main__":
    serve(read)
