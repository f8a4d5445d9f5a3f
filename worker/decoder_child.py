"""Program of the worker's decoder children: one stored file in, one prepared film out; see `worker.decoder`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from clearfilm.child_side import Answer, serve
from clearfilm.dicom import decoding, header
from worker.gate import judge_header, judge_pixels


def prepare(request: dict[str, Any]) -> Answer:
    """Read, judge, decode and judge again.

    Parameters
    ----------
    request : dict
        Keys ``path``, ``edge``, ``display_edge``, ``unknown_age``, ``unknown_view``.

    Returns
    -------
    clearfilm.child_side.Answer
        ``facts``, ``display`` (rows, columns) and ``edge``; then the display picture and the network's input.

    Raises
    ------
    NotAnalysable
        If the film gets no decision.
    """
    ds = decoding.read(Path(request["path"]))
    judge_header(
        header.from_dataset(ds),
        today=datetime.now().astimezone().date(),
        unknown_age=request["unknown_age"],
        unknown_view=request["unknown_view"],
    )
    film = decoding.prepare(ds, request["edge"], request["display_edge"])
    judge_pixels(film)
    values = {"facts": asdict(film.facts), "display": film.display.shape, "edge": request["edge"]}
    return Answer(values, [film.display.data, film.network_input.data])


if __name__ == "__main__":
    serve(prepare)
