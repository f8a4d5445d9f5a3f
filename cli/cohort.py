"""`clearfilm cohort build | export`."""

from datetime import date
from pathlib import Path

from clearfilm import config as configuration
from clearfilm.counts import counted
from clearfilm.errors import ConfigurationError, TrainingError
from clearfilm.keys import installation_key, read_key
from cli.node import opened
from cli.terminal import print_table, say
from cli.watch import watching
from db import reports, training_runs
from db.session import Database
from training import cohort as cohorts
from training.archive import read_archive
from training.cohort import Cohort
from training.export import export
from training.labels.labeller import from_config, label_current
from training.split import KEY_FILE, Scheme, key_id
from worker.decoder import DecoderPool


def build_cohort(
    config_path: Path,
    out: Path,
    *,
    folder: Path | None,
    table: Path | None,
    key_file: Path | None,
    scheme: Scheme,
    temporal_from: date | None,
) -> None:
    """Build from a folder with a CSV file, or from the archive. Raises TrainingError."""
    if (folder is None) != (table is None):
        raise ConfigurationError("--folder and --csv belong together; without both the archive is used")
    config = configuration.load(config_path)
    key = read_key(key_file) if key_file else None
    unknown_age = config.worker.unknown_age
    with watching() as watcher:
        if folder is not None and table is not None:
            with DecoderPool(config) as decoder:
                selection = cohorts.read_folder(folder, table, decoder, unknown_age=unknown_age, watcher=watcher)
            key = key or installation_key(config.data_folder / KEY_FILE)
            root, source = folder, "folder"
        else:
            with opened(config_path) as (_, database):
                key = key or _archive_key(database, config.data_folder / KEY_FILE)
                with database.begin() as session:
                    reports.match_waiting(session)
                label_current(database, from_config(config.reports))
                with database.read() as session:
                    selection = read_archive(session, config.data_folder, unknown_age=unknown_age, watcher=watcher)
            root, source = config.data_folder, "archive"
    built = cohorts.build(selection, out, root=root, source=source, key=key, scheme=scheme, temporal_from=temporal_from)
    _print(built)


def _archive_key(database: Database, path: Path) -> bytes:
    """The installation's key, unless the archive's models know another: they have learned from its test patients."""
    with database.read() as session:
        cohorts_used = [run.cohort for run in training_runs.known(session)]
    used = {
        one["split_key"]
        for one in cohorts_used
        if (one.get("source"), one.get("scheme")) == ("archive", "patient") and "split_key" in one
    }
    key = installation_key(path) if path.exists() or not used else None
    if key is None or used - {key_id(key)}:
        raise TrainingError(
            f"models of this archive were trained with another split key than {path} holds, if it is there at all: "
            "restore it from a backup; another one is used all the same if --split-key names it"
        )
    return key


def export_cohort(config_path: Path, folder: Path, out: Path) -> None:
    """Write de-identified copies of the films. Raises TrainingError."""
    config = configuration.load(config_path)
    cohort = cohorts.load(folder)
    with watching() as watcher, DecoderPool(config) as decoder:
        done = export(cohort, out, decoder, installation_key(config.data_folder / KEY_FILE), watcher=watcher)
    say(f"{counted(done.films, 'film')} exported to {out}; left out: {cohorts.describe(done.left_out)}")
    say("Look for text burned into the pictures before you hand them on: it cannot be found by header alone.")


def _print(cohort: Cohort) -> None:
    rows: list[list[object]] = [
        [part, counts["patients"], counts["normal"], counts["abnormal"]]
        for part, counts in cohort.manifest.counts.items()
    ]
    print_table("", ["part", "patients", "normal films", "abnormal films"], rows)
    excluded = cohort.manifest.excluded
    say(f"left out: {sum(excluded.values())} ({cohorts.describe(excluded)})")
    if cohort.manifest.shared_patients:
        shared = counted(cohort.manifest.shared_patients, "patient is", "patients are")
        say(f"warning: {shared} in more than one part; figures will flatter")
    say(f"cohort {cohort.digest[:12]} in {cohort.folder}")
