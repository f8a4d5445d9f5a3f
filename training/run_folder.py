"""The folder of a run: one process at a time, and nothing but the run that began there."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
import torchvision

from clearfilm.config import Training
from clearfilm.dicom.uids import IMPLEMENTATION_VERSION_NAME
from clearfilm.errors import StorageError, TrainingError
from clearfilm.files import write_durably
from training.cohort import Cohort
from training.processes import Team

RUN: Final = "run.json"
LOCK: Final = "lock"


@contextmanager
def run_folder(cohort: Cohort, out: Path, settings: Training, team: Team, *, resume: bool) -> Iterator[None]:
    """The run's folder, locked by the first process; new, or that of the same run.

    Parameters
    ----------
    cohort : Cohort
    out : pathlib.Path
    settings : Training
    team : Team
        The others wait until the first one has the folder.
    resume : bool
        Whether a run may be there already.

    Raises
    ------
    TrainingError
        If another process works there, or the run there is another one or not to be gone on with.
    StorageError
        If the disk refused.
    """
    if not team.is_first:
        team.wait()
        yield
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / LOCK).open("w")
    except OSError as error:
        raise StorageError(f"cannot write below {out}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainingError(f"another process works on the run {out}") from None
        wanted = {"cohort": cohort.digest, "settings": settings.model_dump(mode="json")}
        if (out / RUN).is_file():
            _compare(out, wanted, resume=resume)
        else:
            content = {
                **wanted,
                "cohort_folder": str(cohort.folder.resolve()),
                "started": datetime.now(UTC).isoformat(),
            }
            content["versions"] = {
                "clearfilm": IMPLEMENTATION_VERSION_NAME,
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
            }
            write_durably(out / RUN, [json.dumps(content, indent=2).encode() + b"\n"])
        team.wait()
        yield


def _compare(out: Path, wanted: Mapping[str, Any], *, resume: bool) -> None:
    if not resume:
        raise TrainingError(f"there is a run in {out} already: go on with --resume, or choose another folder")
    try:
        found = json.loads((out / RUN).read_bytes())
        changed = ["the cohort"] if found["cohort"] != wanted["cohort"] else []
        settings = found["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{out / RUN} is damaged: choose another folder for a new run") from error
    changed += [f"training.{key}" for key, value in wanted["settings"].items() if settings.get(key) != value]
    if changed:
        raise TrainingError(f"the run in {out} was started with another {', '.join(changed)}: resume it with the same")
