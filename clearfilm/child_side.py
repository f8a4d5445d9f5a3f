"""The inside of a decoder child: one stored file in, its pixels out, nothing else within reach.

`clearfilm.child_pool` starts a module that calls `serve`. Requests and answers are lines of JSON on standard
input and output; pixels follow an answer as raw bytes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2

from clearfilm.errors import NotAnalysable


@dataclass(frozen=True)
class Answer:
    """What goes back for one request: JSON values, and bytes after them."""

    values: dict[str, Any]
    parts: Sequence[memoryview]


Work = Callable[[dict[str, Any]], Answer]


def serve(work: Work) -> None:
    """Serve requests from standard input until it ends.

    Parameters
    ----------
    work : callable
        Makes the answer to a request, or raises NotAnalysable or MemoryError.

    Notes
    -----
    The program's arguments are the limits: address space in megabytes, seconds for one request.
    """
    memory_megabytes, timeout_seconds = int(sys.argv[1]), float(sys.argv[2])
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
        fit = answer(work, json.loads(line), output)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not fit:
            return


def answer(work: Work, request: dict[str, Any], output: BinaryIO) -> bool:
    """Serve one request.

    Parameters
    ----------
    work : callable
        As of `serve`.
    request : dict
    output : binary file
        Takes one line of JSON: ``reason`` and ``fit``, or ``answer`` and ``bytes``, the number of bytes that
        follow.

    Returns
    -------
    bool
        Whether this process is fit for another film.
    """
    try:
        done = work(request)
    except NotAnalysable as error:
        _write(output, {"reason": error.reason, "fit": True})
        return True
    except MemoryError:
        _write(output, {"reason": "decoding needs more memory than is allowed", "fit": False})
        return False
    length = sum(part.nbytes for part in done.parts)
    _write(output, {"answer": done.values, "bytes": length}, done.parts)
    return True


def _write(output: BinaryIO, line: dict[str, Any], parts: Sequence[memoryview] = ()) -> None:
    output.write(json.dumps(line).encode() + b"\n")
    for part in parts:
        output.write(part)
    output.flush()


def limit_resources(memory_megabytes: int) -> None:
    """Take from this process what decoding does not need: memory, core dumps, writing files."""
    memory = memory_megabytes * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
