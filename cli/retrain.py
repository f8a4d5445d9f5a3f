"""`clearfilm retrain`: cohort, training, evaluation and registration, one after the other; ends with a candidate.

Each step is a command of its own, so that it can be done by hand as well. A step that is done is not done again.
"""

import getpass
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from clearfilm.children import command
from clearfilm.config import Config
from clearfilm.errors import TrainingError
from clearfilm.evaluation import REPORT
from clearfilm.files import write_durably
from clearfilm.process import end_with_parent
from clearfilm.retraining import FOLDER, OUTCOME, SCHEDULE, unfinished
from clearfilm.vision.bundle import MANIFEST as BUNDLE_MANIFEST
from clearfilm.vision.bundle import verify
from cli.node import opened
from cli.terminal import say
from db import audit
from db.session import Database

_INTERRUPTED = (-signal.SIGTERM, -signal.SIGINT)


@dataclass(frozen=True)
class Step:
    """A command, and the file that tells that it was done."""

    name: str
    arguments: list[str]
    done: Path | None = None


def retrain(config_path: Path, *, user: str | None, resume: bool, scheduled: bool) -> int:
    """Do all steps, or those that an interrupted retraining has left.

    Parameters
    ----------
    config_path : pathlib.Path
    user : str or None
        Who starts it; None: this system's user.
    resume : bool
        Go on with the interrupted one.
    scheduled : bool
        Started by the schedule, with which it ends.

    Returns
    -------
    int
        0: there is a candidate, or nothing to go on with; otherwise the exit code of the step that failed.

    Raises
    ------
    TrainingError
        If an interrupted retraining is there and `resume` was not given.
    StartupError
        If another one is under way.
    """
    if scheduled:
        end_with_parent()
    _step_back()
    actor = SCHEDULE if scheduled else user or getpass.getuser()
    with opened(config_path) as (config, database), database.only_one("retraining"):
        root = config.data_folder / FOLDER
        folder = unfinished(root)
        if resume and folder is None:
            say("no retraining was interrupted")
            return 0
        if folder is not None and not resume:
            raise TrainingError(f"a retraining was interrupted: go on with --resume, or delete {folder}")
        if folder is None:
            folder = root / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}"
            folder.mkdir(mode=0o700, parents=True)
        _tell(database, "retraining resumed" if resume else "retraining started", actor, folder=folder.name)
        return _run(config, config_path.resolve(), database, folder, actor)


def _run(config: Config, config_path: Path, database: Database, folder: Path, actor: str) -> int:
    for step in steps(config_path, folder, actor):
        if step.done is not None and step.done.exists():
            continue
        say(f"retraining {folder.name}: {step.name}")
        code = _do(step)
        if code in _INTERRUPTED:
            raise TrainingError(f"interrupted in the step {step.name}; go on with clearfilm retrain --resume")
        if code != 0:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            _end(database, folder, actor, {"outcome": "failed", "step": step.name, "detail": f"{step.name} {how}"})
            say(f"retraining {folder.name} failed: {step.name} {how}")
            return max(code, 1)
    digest = verify(folder / "run" / "bundle")
    _end(database, folder, actor, {"outcome": "candidate", "bundle": digest})
    say(f"candidate {digest[:12]}: look at it with `clearfilm model show {digest[:12]}`")
    return 0


def steps(config_path: Path, folder: Path, actor: str) -> list[Step]:
    """The commands of a retraining in a folder, in order."""
    cohort, run, evaluation = folder / "cohort", folder / "run", folder / "evaluation"
    bundle = run / "bundle"
    again = ["--resume"] if (run / "run.json").is_file() else []
    if not (evaluation / REPORT).is_file():
        shutil.rmtree(evaluation, ignore_errors=True)  # of an interrupted evaluation
    parts = [
        Step("cohort", ["cohort", "build", "--out", str(cohort)], cohort / "manifest.json"),
        Step(
            "training",
            ["train", "--cohort", str(cohort), "--out", str(run), "--user", actor, *again],
            bundle / BUNDLE_MANIFEST,
        ),
        Step(
            "evaluation",
            ["evaluate", "--bundle", str(bundle), "--cohort", str(cohort), "--out", str(evaluation)],
            evaluation / REPORT,
        ),
        Step(
            "registration",
            ["model", "add", str(bundle), "--evaluation", str(evaluation), "--run", str(run), "--user", actor],
        ),
    ]
    return [Step(part.name, [*part.arguments, "--config", str(config_path)], part.done) for part in parts]


def _do(step: Step) -> int:
    process = subprocess.Popen(  # noqa: S603 - our own program
        [*command("cli.main"), *step.arguments], preexec_fn=end_with_parent
    )
    return process.wait()


def _step_back() -> None:
    """Film traffic comes first."""
    os.nice(19)
    if hasattr(psutil, "IOPRIO_CLASS_IDLE"):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def _end(database: Database, folder: Path, actor: str, facts: Mapping[str, Any]) -> None:
    """Such a folder is never gone on with."""
    write_durably(folder / OUTCOME, [json.dumps(facts).encode() + b"\n"])
    _tell(database, "retraining ended", actor, folder=folder.name, **facts)


def _tell(database: Database, event: str, actor: str, **detail: Any) -> None:
    with database.begin() as session:
        audit.record(session, event, actor=actor, now=database.now(session), **detail)
