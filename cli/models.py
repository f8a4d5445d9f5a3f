"""`clearfilm model list | verify | add | shadow`."""

import getpass
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clearfilm.errors import BundleError, ClearfilmError, StorageError, UsageError
from clearfilm.evaluation import REPORT, Summary
from clearfilm.files import TEMPORARY_SUFFIX, fsync_folder, sha256
from clearfilm.process import process_name
from clearfilm.vision.assemble import keep_bundle, resolve_bundle
from clearfilm.vision.bundle import Bundle, verify
from cli.node import opened
from cli.terminal import print_json, print_table, say
from db import audit, registry, training_runs
from db.governance import RunOutcome
from db.models import ModelBundle
from db.session import Database

EVALUATIONS = "evaluations"
REPORT_PAGE = "report.html"
RUN_FILE = "run.json"


def print_models(config_path: Path, *, as_json: bool) -> None:
    """All bundles that the node knows, newest first."""
    with opened(config_path) as (_, database), database.read() as session:
        rows = registry.known(session)
    if as_json:
        print_json([facts(row) for row in rows])
        return
    cells: list[list[object]] = [
        [row.digest[:12], row.name, row.version, row.state.value, row.activated_at, row.shadow_note] for row in rows
    ]
    print_table("", ["digest", "name", "version", "state", "active since", "shadow switched off"], cells)


def facts(row: ModelBundle) -> dict[str, Any]:
    """A bundle's row as JSON values."""
    return {
        "digest": row.digest,
        "name": row.name,
        "version": row.version,
        "state": row.state.value,
        "operating_point": row.operating_point,
        "evaluation_digest": row.evaluation_digest,
        "shadow_since": row.shadow_since,
        "shadow_note": row.shadow_note,
        "added_at": row.added_at,
        "activated_at": row.activated_at,
    }


def verify_bundle(folder: Path) -> None:
    """Check a bundle against its manifest. Raises BundleError."""
    say(f"{folder}: unaltered, digest {verify(folder)}")


def add_bundle(
    config_path: Path, folder: Path, *, evaluation: Path | None, run: Path | None, user: str | None, as_json: bool
) -> None:
    """Register a bundle with its evaluation and its training run. Raises BundleError, UsageError, StorageError."""
    actor = user or getpass.getuser()
    with opened(config_path) as (config, database):
        report, digest = read_evaluation(evaluation) if evaluation else (None, None)
        kept = keep_bundle(resolve_bundle(folder.resolve(), config.data_folder), config.data_folder)
        if report is not None and report["identity"]["bundle_digest"] != kept.digest:
            raise BundleError(
                f"{evaluation} is an evaluation of bundle {report['identity']['bundle_digest'][:12]}, "
                f"not of {kept.digest[:12]}"
            )
        if evaluation and digest:
            _keep_page(evaluation, config.data_folder, digest)
        row = _register(database, kept, report, digest, actor)
        if run:
            _link_run(database, run, kept.digest, actor)
    if as_json:
        print_json(facts(row))
        return
    say(f"{row.state.value}: {row.name} {row.version} ({row.digest})")


def read_evaluation(folder: Path) -> tuple[dict[str, Any], str]:
    """The content of an evaluation's `report.json`, and its digest. Raises UsageError if it is none."""
    path = folder / REPORT
    try:
        content = path.read_bytes()
        Summary.model_validate_json(content)
        report: dict[str, Any] = json.loads(content)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}): name a folder that evaluate has written"
        ) from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"]) or "content"
        raise UsageError(f"{path} is no evaluation: {place}: {fault['msg']}") from error
    return report, sha256(path)


def kept_page(data_folder: Path, digest: str) -> Path:
    """Where the page of an evaluation is kept."""
    return data_folder / EVALUATIONS / f"{digest[:16]}.html"


def _keep_page(folder: Path, data_folder: Path, digest: str) -> None:
    into = kept_page(data_folder, digest)
    if into.exists() or not (folder / REPORT_PAGE).is_file():
        return
    into.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = into.with_name(into.name + TEMPORARY_SUFFIX)
    try:
        shutil.copyfile(folder / REPORT_PAGE, partial)
        partial.rename(into)
        fsync_folder(into.parent)
    except OSError as error:
        raise StorageError(f"cannot write {into}: {error.strerror}") from error


def _register(
    database: Database, kept: Bundle, report: dict[str, Any] | None, digest: str | None, actor: str
) -> ModelBundle:
    description, point = kept.description, kept.description.operating_point
    with database.begin() as session:
        now = database.now(session)
        is_new = all(row.digest != kept.digest for row in registry.known(session))
        row = registry.register(
            session,
            digest=kept.digest,
            name=description.name,
            version=description.version,
            path=str(kept.folder),
            operating_point=point.model_dump(mode="json") if point else None,
            now=now,
        )
        if is_new:
            audit.record(session, "model added", actor=actor, now=now, digest=kept.digest, model=row.name)
        if report is not None and digest is not None:
            registry.keep_evaluation(session, row, report, digest, actor=actor, now=now)
    return row


def _link_run(database: Database, folder: Path, bundle_digest: str, actor: str) -> None:
    """Note that a run made the bundle; one that was trained without this database is read from its folder."""
    place = str(folder.resolve())
    try:
        told = json.loads((folder / RUN_FILE).read_bytes())
        cohort, settings, place_of_cohort = str(told["cohort"]), dict(told["settings"]), Path(told["cohort_folder"])
        started = datetime.fromisoformat(told["started"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} is not the folder of a training run: {RUN_FILE} cannot be read") from error
    counts = _counts(place_of_cohort, cohort)
    with database.begin() as session:
        now = database.now(session)
        run = training_runs.find(session, place)
        if run is None:
            run = training_runs.begin(
                session,
                folder=place,
                cohort_digest=cohort,
                cohort_folder=str(place_of_cohort),
                cohort=counts,
                settings=settings,
                started_by=actor,
                owner=process_name(),
                now=started,
            )
        if run.bundle_digest != bundle_digest:
            training_runs.end(session, run.id, RunOutcome.FINISHED, now=now, bundle_digest=bundle_digest)


def _counts(folder: Path, digest: str) -> dict[str, Any]:
    """Counts of a run's cohort, if it is still there."""
    # Imported here: OpenCV comes with it.
    from cli.training_record import describe_cohort
    from training import cohort as cohorts

    try:
        cohort = cohorts.load(folder)
    except ClearfilmError:
        return {}
    return describe_cohort(cohort) if cohort.digest == digest else {}


def set_shadow(config_path: Path, digest: str, *, stop: bool, user: str | None, as_json: bool) -> None:
    """Begin or end silent reading. Raises BundleError."""
    actor = user or getpass.getuser()
    with opened(config_path) as (_, database):
        with database.read() as session:
            row = registry.find(session, digest)
        if not stop and verify(Path(row.path)) != row.digest:
            raise BundleError(f"the files of bundle {row.digest[:12]} are another bundle's: add it again")
        with database.begin() as session:
            now = database.now(session)
            row = registry.find(session, row.digest)
            if not stop:
                registry.begin_shadow(session, row, actor=actor, now=now)
            elif not registry.end_shadow(session, row, actor=actor, now=now):
                raise BundleError(f"bundle {row.digest[:12]} does not read silently: it is {row.state.value}")
    if as_json:
        print_json(facts(row))
    else:
        say(f"{row.state.value}: {row.name} {row.version} ({row.digest[:12]})")
