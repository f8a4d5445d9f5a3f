"""`clearfilm model lineage | runs`."""

from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from clearfilm.counts import counted
from clearfilm.errors import BundleError
from clearfilm.process import is_dead
from clearfilm.vision.bundle import read_description
from cli.node import opened
from cli.terminal import print_json, print_table, say
from db import lineage, training_runs
from db.session import Database


def print_lineage(config_path: Path, identifier: str, *, as_json: bool) -> None:
    """From an answer back to the labels. Raises ClearfilmError."""
    with opened(config_path) as (_, database):
        note_dead(database)
        with database.read() as session:
            found = traced(session, identifier)
    if as_json:
        print_json(found)
        return
    for line in _lines(found):
        say(line)


def traced(session: Session, identifier: str) -> dict[str, Any]:
    """`db.lineage.trace`, and what the bundle says itself of its training data, wherever it was trained."""
    found = lineage.trace(session, identifier)
    model = found["model"]
    if model is not None:
        try:
            data = read_description(Path(model["path"])).training_data.model_dump(mode="json")
        except BundleError:
            data = None
        model["training_data"] = data
    return found


def print_runs(config_path: Path, *, as_json: bool) -> None:
    """All training runs, newest first."""
    with opened(config_path) as (_, database):
        note_dead(database)
        with database.read() as session:
            runs = [lineage.run_facts(run) for run in training_runs.known(session)]
    if as_json:
        print_json(runs)
        return
    rows: list[list[object]] = [
        [run["started_at"], run["outcome"], run["started_by"], (run["bundle_digest"] or "")[:12], run["folder"]]
        for run in runs
    ]
    print_table("", ["started", "outcome", "by", "bundle", "folder"], rows)
    for run in runs:
        if run["detail"]:
            say(f"{run['folder']}: {run['detail']}")


def note_dead(database: Database) -> None:
    """Whoever looks at training runs notices those that died."""
    with database.begin() as session:
        training_runs.note_dead(session, is_dead, now=database.now(session))


def _lines(found: dict[str, Any]) -> list[str]:
    lines = []
    if found["study_instance_uid"]:
        lines.append(f"study {found['study_instance_uid']}")
    for result in found["results"]:
        words = result["decision"].replace("_", " ")
        lines.append(
            f"  result {result['sop_instance_uid']}: {result['kind'].upper()}, {words}, sha256 {result['sha256']}"
        )
    for film in found["films"]:
        lines.append(f"  film {film['sop_instance_uid']}: sha256 {film['sha256']}")
        reading = film["analysis"]
        side = "at or above" if reading and reading["above_operating_point"] else "below"
        lines.append(
            f"    analysed {reading['at']}: score {reading['score']:.4f}, {side} the operating point, "
            f"{reading['preprocessing_id']}, {reading['device']}"
            if reading
            else f"    not analysed: {film['reason'] or 'not yet'}"
        )
    return [*lines, *model_lines(found["model"])]


def model_lines(model: dict[str, Any] | None) -> list[str]:
    """A bundle, its run and its cohort."""
    if model is None:
        return ["no model took part"]
    lines = [f"bundle {model['digest']}: {model['name']} {model['version']}, {model['state']}"]
    run = model["run"]
    if run is None:
        lines.append("  training run: not known to this node (`clearfilm model add --run` tells it)")
        data = model["training_data"]
        if data:
            lines.append(f"  training data {data['digest']}: {data['description']}, {_counts(data['films'])} films")
        return lines
    ended = f" to {run['ended_at']}" if run["ended_at"] else ""
    lines.append(
        f"  training run {run['folder']}: {run['outcome']}, {run['started_at']}{ended}, by {run['started_by']}"
    )
    return [*lines, *_cohort_lines(run["cohort"])]


def _cohort_lines(cohort: dict[str, Any]) -> list[str]:
    lines = [f"  cohort {cohort['digest']}: {cohort.get('source', 'source not known')}, {cohort['folder']}"]
    lines += [f"    {part}: {_counts(counts)}" for part, counts in cohort.get("counts", {}).items()]
    for label, rules in cohort.get("rules", {}).items():
        lines += [
            f"    {label} by {rule}: {counted(counts['films'], 'film')}, {counted(counts['reports'], 'report')}"
            for rule, counts in rules.items()
        ]
    left_out = cohort.get("excluded", {})
    if left_out:
        lines.append(f"    left out: {sum(left_out.values())} ({_counts(left_out)})")
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())
