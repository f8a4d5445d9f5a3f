"""Child processes that decode: films are decoded outside of ours, under a time and a memory limit.

A file can make a native decoder crash, hang or eat memory. Then its child dies, the film gets one more
try in a fresh child, and after that it is given up with a reason; nothing else notices. What runs inside a
child is in `clearfilm.child_side`.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any, Final, TypeVar, cast

from clearfilm import children
from clearfilm.errors import ClearfilmError, NotAnalysable

logger = logging.getLogger(__name__)

# Native decoders leak a little on damaged files (GDCM, CVE-2026-3650).
_FILMS_PER_CHILD: Final = 500
_ATTEMPTS: Final = 2
_PIPE_BYTES: Final = 1 << 20
Answer = TypeVar("Answer")
Parse = Callable[[dict[str, Any], bytes], Answer]


@dataclass(frozen=True)
class Limits:
    """What one child may use."""

    memory_megabytes: int  # address space
    timeout_seconds: float  # for one film


class ChildPool:
    """A few children, each served by one thread.

    Parameters
    ----------
    module : str
        Program of the children: a module that ends in `clearfilm.child_side.serve`.
    count : int
        Number of children.
    limits : Limits
    """

    def __init__(self, module: str, count: int, limits: Limits) -> None:
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        self._children = [_Child(module, limits) for _ in range(count)]
        for child in self._children:
            child.start()
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")

    def submit(self, request: dict[str, Any], parse: Parse[Answer]) -> Future[Answer]:
        """Ask a child.

        Parameters
        ----------
        request : dict
            JSON values.
        parse : callable
            Makes the result from the child's answer and the bytes that follow it. ValueError, TypeError and
            KeyError of it mean that the child has lost its senses.

        Returns
        -------
        concurrent.futures.Future
            Raises `NotAnalysable` with the reason. Cancelled if the pool closes first.
        """
        return self._threads.submit(self._ask, request, parse)

    def pids(self) -> list[int]:
        """Process numbers of the living children."""
        return [child.pid for child in self._children if child.pid is not None]

    def close(self) -> None:
        """Cancel what waits, let the film in hand end, end and reap every child."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.stop()

    def __enter__(self) -> ChildPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], parse: Parse[Answer]) -> Answer:
        child = self._idle.get()
        try:
            return child.ask(request, parse)
        finally:
            self._idle.put(child)


class _ChildLost(ClearfilmError):
    """The child died or did not answer in time."""


class _Child:
    """One process at a time, replaced when it dies, hangs or has served long enough."""

    def __init__(self, module: str, limits: Limits) -> None:
        self._module = module
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process; it loads its libraries while we do something else."""
        # A child that hangs ends itself a little later than we would end it: we may be gone by then.
        limits = [self._limits.memory_megabytes, 1.5 * self._limits.timeout_seconds]
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [*children.command(self._module), *map(str, limits)],
            env=children.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pipesize=_PIPE_BYTES,
            start_new_session=True,  # Ctrl-C in the terminal is for our process, which then ends its children
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

    def ask(self, request: dict[str, Any], parse: Parse[Answer]) -> Answer:
        reason = ""
        for _ in range(_ATTEMPTS):
            if self._process is None or self._served >= _FILMS_PER_CHILD:
                self.stop()
                self.start()
            try:
                return self._ask_once(request, parse)
            except _ChildLost as error:
                reason = str(error)
                self.stop()
                logger.warning("a decoder stopped", extra={"reason": reason})
        raise NotAnalysable(f"the decoder stopped: {reason}")

    def _ask_once(self, request: dict[str, Any], parse: Parse[Answer]) -> Answer:
        self._served += 1
        answers = _Answers(self._running(), time.monotonic() + self._limits.timeout_seconds)
        answers.send(json.dumps(request).encode() + b"\n")
        try:
            answer = json.loads(answers.line())
            if "reason" in answer:
                if not answer["fit"]:
                    self.stop()
                raise NotAnalysable(answer["reason"])
            return parse(answer["answer"], answers.exactly(answer["bytes"]))
        except (ValueError, TypeError, KeyError) as error:
            raise _ChildLost("unintelligible answer") from error

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
        data = os.read(self._output.fileno(), _PIPE_BYTES)
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
