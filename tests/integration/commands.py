"""The command `clearfilm` as an administrator calls it."""

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a user sees of a command."""

    returncode: int
    stdout: str
    stderr: str


def clearfilm(config_path: Path, *arguments: str, **environment: str) -> Outcome:
    """The command in this process: an error that it does not translate fails the test."""
    umask = os.umask(0o077)
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as output,
        redirect_stderr(io.StringIO()) as complaints,
    ):
        patch.setattr(sys, "argv", ["clearfilm", *arguments])
        for name, value in {"CLEARFILM_CONFIG": str(config_path), "COLUMNS": "200", **environment}.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    os.umask(umask)
    return Outcome(int(ended.value.code or 0), output.getvalue(), complaints.getvalue())
