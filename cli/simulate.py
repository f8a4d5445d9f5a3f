"""`clearfilm simulate`: a site's own arrivals, read in order of arrival, with triage, and with triage and the limit."""

import csv
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from clearfilm import config as configuration
from clearfilm.config import Config
from clearfilm.counts import counted
from clearfilm.errors import ClearfilmError, UsageError
from clearfilm.simulation import GROUPS, ORDERS, Arrivals, Simulation, Wait, simulate
from clearfilm.triage import Decision
from cli.node import opened
from cli.terminal import print_json, print_table, say
from db.models import Report, ReportStatus, Study, StudyPlacement, StudyState

_YES = frozenset({"1", "true", "yes", "y", "abnormal", "finding"})
_NO = frozenset({"0", "false", "no", "n", "normal", "no_finding"})


def run_simulation(
    config_path: Path,
    arrivals_csv: Path | None,
    *,
    readers: int,
    minutes: float,
    limit_minutes: float | None,
    seed: int,
    as_json: bool,
) -> None:
    """Replay and print. Raises UsageError and ClearfilmError."""
    if arrivals_csv is not None:
        known = config_path.exists()
        policy_wait = configuration.load(config_path).policy.maximum_wait_minutes if known else None
        limit = limit_minutes or policy_wait or Config().policy.maximum_wait_minutes
        arrivals = read_csv(arrivals_csv, limit)
    else:
        arrivals, limit = _from_database(config_path, limit_minutes)
    found = simulate(arrivals, readers=readers, reading_seconds=minutes * 60, seed=seed)
    if as_json:
        print_json(_json(found, arrivals, readers, minutes, limit))
        return
    studies = counted(len(arrivals.arrived_seconds), "study", "studies")
    say(
        f"{studies}, {counted(readers, 'reader')}, {counted(minutes, 'minute')} a study: "
        f"{_busy(found.utilisation)}; limit {counted(limit, 'minute')}"
    )
    if found.utilisation >= 1:
        say("more work arrives than is read: the waits below grow with the length of the data")
    rows: list[list[object]] = [
        [group, order, wait.studies, *(_minutes(value) for value in (wait.mean, wait.p95, wait.maximum))]
        for group in GROUPS
        for order in ORDERS
        if (wait := found.waits.get(group, {}).get(order))
    ]
    print_table("", ["studies", "order", "number", "mean", "95 %", "longest (minutes)"], rows)
    if arrivals.abnormal is None:
        say("which studies have a finding is not known: import and label reports, or add a column abnormal")


def read_csv(path: Path, limit_minutes: float) -> Arrivals:
    """Arrivals from a file with the columns arrived_at, tagged, and perhaps abnormal and limit_minutes.

    Raises
    ------
    UsageError
        With the line that cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise UsageError(f"{path} has no rows; needed are the columns arrived_at and tagged")
    studies = [_row(path, number, row, limit_minutes) for number, row in enumerate(rows, 2)]
    abnormal = [study[2] for study in studies]
    return Arrivals(
        arrived_seconds=np.array([study[0] for study in studies], dtype=np.float64),
        tagged=np.array([study[1] for study in studies], dtype=np.bool_),
        abnormal=None if None in abnormal else np.array(abnormal, dtype=np.bool_),
        limit_seconds=np.array([study[3] for study in studies], dtype=np.float64),
    )


def _row(
    path: Path, number: int, row: Mapping[str, str | None], limit_minutes: float
) -> tuple[float, bool, bool | None, float]:
    try:
        at = datetime.fromisoformat((row.get("arrived_at") or "").strip())
        tagged = _flag(row.get("tagged") or "")
        abnormal = _flag(text) if (text := (row.get("abnormal") or "").strip()) else None
        limit = float(text) if (text := (row.get("limit_minutes") or "").strip()) else limit_minutes
        if not limit >= 0:
            raise ValueError("limit_minutes must not be negative")
    except ValueError as error:
        raise UsageError(f"{path}, line {number}: {error}; see docs/triage-policy.md") from None
    moment = at if at.tzinfo else at.replace(tzinfo=UTC)
    return moment.timestamp(), tagged, abnormal, limit * 60


def _flag(text: str) -> bool:
    plain = text.strip().lower()
    if plain not in _YES | _NO:
        raise ValueError(f"{text!r} is neither yes nor no")
    return plain in _YES


def _from_database(config_path: Path, limit_minutes: float | None) -> tuple[Arrivals, float]:
    """Studies that were placed; before there are placements, every study without a finding counts as tagged."""
    label = (
        select(Report.label)
        .where(Report.study_id == Study.id, Report.superseded_by.is_(None), Report.status != ReportStatus.PRELIMINARY)
        .order_by(Report.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    with opened(config_path) as (config, database), database.read() as session:
        rows = session.execute(
            select(Study.first_received_at, Study.decision, StudyPlacement.tagged, label)
            .outerjoin(
                StudyPlacement,
                (StudyPlacement.study_id == Study.id) & StudyPlacement.superseded_at.is_(None),
            )
            .where(Study.state == StudyState.CONCLUDED)
            .order_by(Study.first_received_at)
        ).all()
    if not rows:
        raise ClearfilmError("no study has been concluded yet; give a file with --arrivals")
    limit = limit_minutes or config.policy.maximum_wait_minutes
    tagged = [decision is Decision.NO_SIGNIFICANT_FINDING if tag is None else bool(tag) for _, decision, tag, _ in rows]
    labels = [report for *_, report in rows]
    return (
        Arrivals(
            arrived_seconds=np.array([at.timestamp() for at, *_ in rows], dtype=np.float64),
            tagged=np.array(tagged, dtype=np.bool_),
            abnormal=np.array([text == "finding" for text in labels], dtype=np.bool_) if any(labels) else None,
            limit_seconds=np.full(len(rows), limit * 60.0),
        ),
        limit,
    )


def _busy(utilisation: float) -> str:
    return f"{utilisation:.0%} busy" if utilisation < 10 else "more than 1000% busy"


def _minutes(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds / 60:.1f}"


def _json(found: Simulation, arrivals: Arrivals, readers: int, minutes: float, limit: float) -> dict[str, Any]:
    return {
        "studies": len(arrivals.arrived_seconds),
        "readers": readers,
        "minutes": minutes,
        "limit_minutes": limit,
        "utilisation": found.utilisation if math.isfinite(found.utilisation) else None,
        "waits_seconds": {
            group: {order: _plain(wait) for order, wait in orders.items()} for group, orders in found.waits.items()
        },
    }


def _plain(wait: Wait) -> dict[str, Any]:
    return {name: None if math.isnan(value) else value for name, value in asdict(wait).items()}
