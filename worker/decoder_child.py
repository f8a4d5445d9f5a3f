"""The inside of a decoder child: one stored file in, one prepared film out, nothing else within reach.

`worker.decoder` starts this module as a program. Requests and answers are lines of JSON on standard input
and output; pixels follow an answer as raw bytes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import cv2

from clearfilm.dicom import decoding, header
from clearfilm.dicom.pixels import PreparedFilm
from clearfilm.errors import NotAnalysable
from worker.gate import judge_header, judge_pixels


def prepare(request: dict[str, Any]) -> PreparedFilm:
    """Read, judge, decode and judge again.

    Parameters
    ----------
    request : dict
        Keys ``path``, ``edge``, ``display_edge``, ``unknown_age``, ``unknown_view``.

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
    return film


def answer(request: dict[str, Any], output: BinaryIO) -> bool:
    """Serve one request.

    Parameters
    ----------
    request : dict
        See `prepare`.
    output : binary file
        Takes one line of JSON: ``reason`` and ``fit``, or ``facts`` and ``display`` (rows, columns). The
        display picture and the network's input follow the latter, as bytes.

    Returns
    -------
    bool
        Whether this process is fit for another film.
    """
    try:
        film = prepare(request)
    except NotAnalysable as error:
        _write(output, {"reason": error.reason, "fit": True})
        return True
    except MemoryError:
        _write(output, {"reason": "decoding needs more memory than is allowed", "fit": False})
        return False
    _write(output, {"facts": asdict(film.facts), "display": film.display.shape}, film)
    return True


def _write(output: BinaryIO, line: dict[str, Any], film: PreparedFilm | None = None) -> None:
    output.write(json.dumps(line).encode() + b"\n")
    if film is not None:
        output.write(film.display.data)
        output.write(film.network_input.data)
    output.flush()


def serve(memory_megabytes: int, timeout_seconds: float) -> None:
    """Serve films from standard input until it ends."""
    output = os.fdopen(os.dup(1), "wb")
    # Decoders print; what they say about damaged files is neither an answer nor fit for a log.
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    cv2.setNumThreads(1)
    limit_resources(memory_megabytes)
    for line in sys.stdin.buffer:
        # The kernel ends a child that hangs, also one whose parent is gone.
        signal.setitimer(signal.ITIMER_REAL, timeout_seconds)
        fit = answer(json.loads(line), output)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not fit:
            return


def limit_resources(memory_megabytes: int) -> None:
    """Take from this process what decoding does not need: memory, core dumps, writing files."""
    memory = memory_megabytes * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))
