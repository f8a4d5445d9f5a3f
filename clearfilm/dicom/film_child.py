"""Program of the decoder children that serve readers: one stored file in, its pixels in full depth out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from clearfilm.child_side import Answer, serve
from clearfilm.dicom import decoding, pixels

_THREADS: Final = min(4, os.cpu_count() or 1)


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
    # Somebody waits for this one film; the analysis has others to decode meanwhile, and uses one thread for each.
    stored, decoder = decoding.decode(ds, threads=_THREADS)
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
