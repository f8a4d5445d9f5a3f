"""Child processes of our own that work on received bytes: the same code, none of our secrets."""

import os
import sys
from pathlib import Path

import clearfilm


def command(module: str) -> list[str]:
    """Arguments that start a module of this distribution as a program of its own."""
    return [sys.executable, "-m", module]


def environment() -> dict[str, str]:
    """Environment of such a child: without configuration overrides, passwords or many threads."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
    # The libraries would reserve stack and buffers for each thread out of a limited address space.
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    return kept | threads | {"PYTHONPATH": str(Path(clearfilm.__file__).parent.parent)}
