"""`clearfilm evaluate`."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clearfilm import config as configuration
from clearfilm.config import Config
from clearfilm.counts import counted
from clearfilm.errors import StartupError, TrainingError, UsageError
from clearfilm.evaluation import REPORT, Summary
from clearfilm.keys import installation_key
from clearfilm.vision.assemble import resolve_bundle
from clearfilm.vision.bundle import Bundle, load_bundle
from cli.node import opened
from cli.terminal import print_table, say
from cli.watch import watching
from db import registry
from training import cohort as cohorts
from training.evaluation import label_audit
from training.evaluation.evaluate import PAGE, Options, check_free, evaluate
from training.evaluation.label_audit import LabelAudit
from training.evaluation.material import Material, from_cohort, from_folder
from training.evaluation.queueing import Traffic
from training.progress import Watcher
from training.split import KEY_FILE
from worker.decoder import DecoderPool


@dataclass(frozen=True)
class Films:
    """What is evaluated on, as the command line names it."""

    cohort: Path | None
    folder: Path | None
    table: Path | None
    moved_to: Path | None


@dataclass(frozen=True)
class Beside:
    """What is shown beside the bundle's own figures."""

    against: Path | None
    random_bundle: Path | None
    random_cohort: Path | None
    audit: Path | None


@dataclass(frozen=True)
class Room:
    """The reading room of the simulation."""

    arrivals: Path | None
    readers: int
    utilisation: float
    reading_seconds: float
    limit_minutes: float
    prevalence: float | None


def run_evaluation(config_path: Path, bundle: Path, out: Path, *, films: Films, beside: Beside, room: Room) -> None:
    """Evaluate and write the report. Raises TrainingError, BundleError."""
    _check_usage(films, beside)
    check_free(out)
    config = configuration.load(config_path)
    loaded = _bundle(bundle, config)
    traffic = _traffic(room)
    audit = None if beside.audit is None else label_audit.from_file(beside.audit)
    with watching() as watcher, DecoderPool(config) as decoder:
        material = _material(films, config, decoder, watcher)
        if audit is None and material.cohort.manifest.source == "archive":
            audit = _kept_audit(config_path)
        against, no_opponent = _opponent(beside, loaded, config_path, config)
        options = Options(
            against=against,
            no_opponent=no_opponent,
            random_split=_random_split(beside, config),
            traffic=traffic,
            audit=audit,
        )
        summary = evaluate(loaded, material, out, config, decoder, options=options, watcher=watcher)
    _print(summary, out)


def _check_usage(films: Films, beside: Beside) -> None:
    if (films.cohort is None) == (films.folder is None) or (films.folder is None) != (films.table is None):
        raise UsageError("name either --cohort, or --folder and --csv")
    if films.moved_to is not None and films.cohort is None:
        raise UsageError("--films goes with --cohort")
    if (beside.random_bundle is None) != (beside.random_cohort is None):
        raise UsageError("--random-split-bundle and --random-split-cohort go together")


def _bundle(folder: Path, config: Config) -> Bundle:
    return load_bundle(resolve_bundle(folder.resolve(), config.data_folder))


def _material(films: Films, config: Config, decoder: DecoderPool, watcher: Watcher) -> Material:
    if films.cohort is not None:
        return from_cohort(cohorts.load(films.cohort, root=films.moved_to))
    assert films.folder is not None
    assert films.table is not None
    return from_folder(
        films.folder,
        films.table,
        decoder,
        key=installation_key(config.data_folder / KEY_FILE),
        unknown_age=config.worker.unknown_age,
        watcher=watcher,
    )


def _opponent(beside: Beside, ours: Bundle, config_path: Path, config: Config) -> tuple[Bundle | None, str]:
    """The bundle to compare with, or why there is none."""
    if beside.against is not None:
        return _bundle(beside.against, config), ""
    try:
        with opened(config_path) as (_, database), database.read() as session:
            row = registry.active(session)
            active = None if row is None else (Path(row.path), row.digest)
    except StartupError:
        return None, "no model was named, and this node has no database yet that would know an active one"
    if active is None:
        return None, "no model was named, and this node has no active one"
    folder, digest = active
    if digest == ours.digest:
        return None, "this is the active model of the node"
    return load_bundle(folder, expected_digest=digest), ""


def _kept_audit(config_path: Path) -> LabelAudit | None:
    try:
        with opened(config_path) as (_, database), database.read() as session:
            return label_audit.from_database(session)
    except StartupError:
        return None  # the cohort has come from another machine


def _random_split(beside: Beside, config: Config) -> tuple[Bundle, Material] | None:
    if beside.random_bundle is None or beside.random_cohort is None:
        return None
    return _bundle(beside.random_bundle, config), from_cohort(cohorts.load(beside.random_cohort))


def _traffic(room: Room) -> Traffic:
    return Traffic(
        utilisation=room.utilisation,
        reading_seconds=room.reading_seconds,
        readers=room.readers,
        limit_seconds=60 * room.limit_minutes,
        prevalence=room.prevalence,
        arrived_seconds=None if room.arrivals is None else _arrivals(room.arrivals),
    )


def _arrivals(path: Path) -> NDArray[np.float64]:
    """Times of arrival, one a line; zones may be named, but in all lines or in none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} cannot be read as text ({type(error).__name__})") from error
    moments = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                moments.append(datetime.fromisoformat(line.strip()))
            except ValueError as error:
                raise TrainingError(f"{path}, line {number}: is no time in ISO 8601 (2026-11-02T08:15:00)") from error
    if len(moments) < 2 or len({moment.tzinfo is None for moment in moments}) > 1:
        raise TrainingError(f"{path}: needs two times or more, all with a zone or all without")
    first = min(moments)
    return np.sort([(moment - first).total_seconds() for moment in moments])


def _print(summary: Summary, out: Path) -> None:
    low, high = summary.auc_interval
    rows: list[list[object]] = [["AUC", f"{summary.auc:.3f}", f"{low:.3f} to {high:.3f}"]]
    rows += [
        [f"AUC, view {view}", f"{group.auc:.3f}", "{:.3f} to {:.3f}".format(*group.auc_interval)]
        for view, group in summary.by_view.items()
        if group.auc is not None and group.auc_interval is not None
    ]
    rows += [
        [
            f"specificity at {float(wanted):.1%} sensitivity",
            f"{at.specificity:.3f}",
            "{:.3f} to {:.3f}".format(*at.interval),
        ]
        for wanted, at in summary.specificity_at_sensitivity.items()
    ]
    point = summary.operating_point
    if point is not None:
        rows.append(
            [
                "sensitivity at the operating point",
                f"{point.sensitivity:.3f}",
                "{:.3f} to {:.3f}".format(*point.sensitivity_interval),
            ]
        )
        rows.append(
            [
                "specificity at the operating point",
                f"{point.specificity:.3f}",
                "{:.3f} to {:.3f}".format(*point.specificity_interval),
            ]
        )
        rows.append(["missed, of them critical", f"{point.missed}, {point.missed_critical}", ""])
    rows += [[f"AUC of shortcut {name}", f"{area:.3f}", ""] for name, area in summary.shortcuts.items()]
    films = f"{counted(summary.n, 'film')} of {counted(summary.patients, 'patient')}"
    title = f"{films}: {summary.normal} normal, {summary.abnormal} abnormal"
    print_table(title, ["figure", "value", "95 % interval"], rows)
    if summary.demonstration:
        say("demonstration data: too few films, do not quote these figures")
    if point is None:
        say('the model has no operating point: it can never say "no significant finding"')
    say(f"report: {out / PAGE}, {out / REPORT}")
