"""Decoder children: films are decoded outside this process, under a time and a memory limit.

A file can make a native decoder crash, hang or eat memory. Then its child dies, the film gets one more
try in a fresh child, and after that it is "not analysed"; nothing else notices.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Final, cast

import numpy as np

from clearfilm import children
from clearfilm.config import Config
from clearfilm.dicom.pixels import FilmFacts, PreparedFilm
from clearfilm.errors import ClearfilmError, NotAnalysable

logger = logging.getLogger(__name__)

DEFAULT_EDGE: Final = 224
# Native decoders leak a little on damaged files (GDCM, CVE-2026-3650).
_FILMS_PER_CHILD: Final = 500
_ATTEMPTS: Final = 2


class _ChildLost(ClearfilmError):
    """The child died or did not answer in time."""


class DecoderPool:
    """A few decoder children, each served by one thread.

    Parameters
    ----------
    config : Config
        Sections `worker` (number, limits, unknown age) and `results` (size of the display picture).
    """

    def __init__(self, config: Config) -> None:
        count = config.worker.decoders
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        self._children = [_Child(config) for _ in range(count)]
        for child in self._children:
            child.start()
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")

    def submit(self, path: Path, edge: int = DEFAULT_EDGE) -> Future[PreparedFilm]:
        """Have a stored film judged by the gate, decoded and prepared.

        Parameters
        ----------
        path : pathlib.Path
            A DICOM file with file meta information.
        edge : int
            Side of the network's input, pixels.

        Returns
        -------
        concurrent.futures.Future
            Of a `PreparedFilm`; raises `NotAnalysable` with the reason. Cancelled if the pool closes first.
        """
        return self._threads.submit(self._prepare, path, edge)

    def pids(self) -> list[int]:
        """Process numbers of the living children."""
        return [child.pid for child in self._children if child.pid is not None]

    def close(self) -> None:
        """Cancel what waits, let the film in hand end, end and reap every child."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.stop()

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, path: Path, edge: int) -> PreparedFilm:
        child = self._idle.get()
        try:
            return child.prepare(path, edge)
        finally:
            self._idle.put(child)


class _Child:
    """One decoder process at a time, replaced when it dies, hangs or has served long enough."""

    def __init__(self, config: Config) -> None:
        self._limits = config.worker
        self._display_edge = config.results.secondary_capture_edge
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process; it loads its libraries while we do something else."""
        # A child that hangs ends itself a little later than we would end it: we may be gone by then.
        limits = [self._limits.decode_memory_megabytes, 1.5 * self._limits.decode_timeout_seconds]
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [*children.command("worker.decoder_child"), *map(str, limits)],
            env=children.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is for the worker, which then ends its children
        )
        self._served = 0

    def stop(self) -> None:
        """End and reap the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            cast(IO[bytes], pipe).close()

    def prepare(self, path: Path, edge: int) -> PreparedFilm:
        reason = ""
        for _ in range(_ATTEMPTS):
            if self._process is None or self._served >= _FILMS_PER_CHILD:
                self.stop()
                self.start()
            try:
                return self._ask(path, edge)
            except _ChildLost as error:
                reason = str(error)
                self.stop()
                logger.warning("a decoder stopped", extra={"reason": reason})
        raise NotAnalysable(f"the decoder stopped: {reason}")

    def _ask(self, path: Path, edge: int) -> PreparedFilm:
        self._served += 1
        request = {
            "path": str(path),
            "edge": edge,
            "display_edge": self._display_edge,
            "unknown_age": self._limits.unknown_age,
            "unknown_view": self._limits.unknown_view,
        }
        answers = _Answers(self._running(), time.monotonic() + self._limits.decode_timeout_seconds)
        answers.send(json.dumps(request).encode() + b"\n")
        try:
            return self._film(answers, edge)
        except (ValueError, TypeError, KeyError) as error:
            raise _ChildLost("unintelligible answer") from error

    def _film(self, answers: _Answers, edge: int) -> PreparedFilm:
        answer = json.loads(answers.line())
        if "reason" in answer:
            if not answer["fit"]:
                self.stop()
            raise NotAnalysable(answer["reason"])
        rows, columns = answer["display"]
        display = np.frombuffer(answers.exactly(rows * columns), np.uint8).reshape(rows, columns)
        network_input = np.frombuffer(answers.exactly(edge**2), np.uint8).reshape(edge, edge)
        return PreparedFilm(display, network_input, FilmFacts(**answer["facts"]))

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process


class _Answers:
    """Reads from a child until a deadline."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        self._process = process
        self._deadline = deadline
        self._input = cast(IO[bytes], process.stdin)
        self._output = cast(IO[bytes], process.stdout)
        self._buffer = bytearray()

    def send(self, line: bytes) -> None:
        try:
            self._input.write(line)
        except OSError as error:
            raise self._lost() from error

    def line(self) -> bytes:
        while b"\n" not in self._buffer:
            self._buffer += self._read()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return bytes(line)

    def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += self._read()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _read(self) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            if not selector.select(max(0, self._deadline - time.monotonic())):
                raise _ChildLost("no answer in time")
        data = os.read(self._output.fileno(), 1 << 20)
        if not data:
            raise self._lost()
        return data

    def _lost(self) -> _ChildLost:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return _ChildLost("it closed its output")
        if code >= 0:
            return _ChildLost(f"exit code {code}")
        return _ChildLost(f"signal {signal.Signals(-code).name}")
