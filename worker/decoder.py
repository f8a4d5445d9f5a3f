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
from clearfilm.dicom.pixels import DISPLAY_EDGE, FilmFacts, PreparedFilm
from clearfilm.errors import ClearfilmError, NotAnalysable

logger = logging.getLogger(__name__)

# Native decoders leak a little on damaged files (GDCM, CVE-2026-3650).
_FILMS_PER_CHILD: Final = 500
_ATTEMPTS: Final = 2


class _ChildLost(ClearfilmError):
    """The child died or did not answer in time."""


class DecoderPool:
    """A few decoder children, each served by one thread.

    Parameters
    ----------
    children_count : int
        How many films are decoded at once.
    timeout_seconds : float
        Longest time for one film, in one try.
    memory_megabytes : int
        Address space of one child.
    edge : int
        Side of the network's input, pixels.
    display_edge : int
        Longest side of the display picture, pixels.
    """

    def __init__(
        self,
        children_count: int,
        timeout_seconds: float,
        memory_megabytes: int,
        edge: int,
        display_edge: int = DISPLAY_EDGE,
    ) -> None:
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        self._children = [_Child(timeout_seconds, memory_megabytes, edge, display_edge) for _ in range(children_count)]
        for child in self._children:
            child.start()
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(children_count, thread_name_prefix="decoder")

    def submit(self, path: Path) -> Future[PreparedFilm]:
        """Have a stored film decoded and prepared.

        Parameters
        ----------
        path : pathlib.Path
            A DICOM file with file meta information.

        Returns
        -------
        concurrent.futures.Future
            Of a `PreparedFilm`; raises `NotAnalysable` with the reason. Cancelled if the pool closes first.
        """
        return self._threads.submit(self._prepare, path)

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

    def _prepare(self, path: Path) -> PreparedFilm:
        child = self._idle.get()
        try:
            return child.prepare(path)
        finally:
            self._idle.put(child)


class _Child:
    """One decoder process at a time, replaced when it dies, hangs or has served long enough."""

    def __init__(self, timeout_seconds: float, memory_megabytes: int, edge: int, display_edge: int) -> None:
        self._timeout_seconds = timeout_seconds
        self._memory_megabytes = memory_megabytes
        self._edge = edge
        self._display_edge = display_edge
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process; it loads its libraries while we do something else."""
        # A child that hangs ends itself a little later than we would end it: we may be gone by then.
        limits = [str(self._memory_megabytes), str(self._timeout_seconds * 1.5)]
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            children.command("clearfilm.dicom.decoding") + limits,
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

    def prepare(self, path: Path) -> PreparedFilm:
        reason = ""
        for _ in range(_ATTEMPTS):
            if self._process is None or self._served >= _FILMS_PER_CHILD:
                self.stop()
                self.start()
            try:
                return self._ask(path)
            except _ChildLost as error:
                reason = str(error)
                self.stop()
                logger.warning("a decoder stopped", extra={"reason": reason})
        raise NotAnalysable(f"the decoder stopped: {reason}")

    def _ask(self, path: Path) -> PreparedFilm:
        self._served += 1
        request = {"path": str(path), "edge": self._edge, "display_edge": self._display_edge}
        answers = _Answers(self._running(), time.monotonic() + self._timeout_seconds)
        answers.send(json.dumps(request).encode() + b"\n")
        try:
            return self._film(answers)
        except (ValueError, TypeError, KeyError) as error:
            raise _ChildLost("unintelligible answer") from error

    def _film(self, answers: _Answers) -> PreparedFilm:
        answer = json.loads(answers.line())
        if "reason" in answer:
            if not answer["fit"]:
                self.stop()
            raise NotAnalysable(answer["reason"])
        rows, columns = answer["display"]
        display = np.frombuffer(answers.exactly(rows * columns), np.uint8).reshape(rows, columns)
        network_input = np.frombuffer(answers.exactly(self._edge**2), np.uint8).reshape(self._edge, -1)
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
