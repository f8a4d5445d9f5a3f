"""`clearfilm model show`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import select

from clearfilm.counts import counted
from clearfilm.errors import BundleError
from clearfilm.vision.bundle import read_description
from cli.lineage import model_lines, note_dead, traced
from cli.models import facts, kept_page
from cli.node import opened
from cli.promote import ballot_facts, fault_of, print_gates, signature_facts
from cli.terminal import print_json, print_table, say
from db import promotion, registry
from db.governance import Signature
from db.models import ModelBundle

_FIGURES = ("n", "auc", "auc_interval", "brier", "ece", "calibration_slope", "demonstration")


def show_bundle(config_path: Path, digest: str, *, as_json: bool) -> None:
    """Everything about one bundle. Raises BundleError."""
    with opened(config_path) as (config, database):
        note_dead(database)
        with database.read() as session:
            row = registry.find(session, digest)
        fault = fault_of(row)
        with database.read() as session:
            row = registry.find(session, row.digest)
            now = database.now(session)
            ballot = promotion.ballot(session, row, fault=fault, limits=config.promotion, now=now)
            statistics = promotion.shadow_statistics(session, row, now=now)
            signatures = session.scalars(select(Signature).where(Signature.model_id == row.id).order_by(Signature.id))
            found = {
                **facts(row),
                "path": row.path,
                "fault": fault,
                "metrics": _metrics(row),
                "evaluation": _evaluation(row, config.data_folder),
                "promotion": ballot_facts(ballot),
                "gates_when_signed": row.gates,
                "signatures": [signature_facts(signature) for signature in signatures],
                "activations": [
                    {"at": entry.activated_at, "rollback": entry.rollback}
                    for entry in registry.activations(session, row)
                ],
                "shadow": asdict(statistics) if statistics else None,
                "studies_decided": registry.count_decided_by(session, row),
                "lineage": traced(session, row.digest)["model"],
            }
    if as_json:
        print_json(found)
        return
    _print(found)
    # What was measured for a bundle that is or was active is history; for the others it is what stands in the way.
    if not found["activations"]:
        print_gates(ballot)


def _metrics(row: ModelBundle) -> list[dict[str, Any]]:
    try:
        return [metric.model_dump() for metric in read_description(Path(row.path)).metrics]
    except BundleError:
        return []


def _evaluation(row: ModelBundle, data_folder: Path) -> dict[str, Any] | None:
    """Head figures, and where the whole page is; the whole report is in the database."""
    if row.evaluation is None or row.evaluation_digest is None:
        return None
    page = kept_page(data_folder, row.evaluation_digest)
    return {
        "digest": row.evaluation_digest,
        **{name: row.evaluation.get(name) for name in _FIGURES},
        "page": str(page) if page.exists() else None,
    }


def _print(found: dict[str, Any]) -> None:
    say(f"{found['name']} {found['version']}: {found['state']}")
    say(f"digest {found['digest']}")
    say(f"files {found['path']}: {found['fault'] or 'unaltered'}")
    point = found["operating_point"]
    say(
        f"operating point {point['threshold']:.4f}: {point['sensitivity']:.1%} sensitivity at "
        f"{point['confidence']:.0%} confidence, from {counted(point['abnormal_patients'], 'abnormal patient')}"
        if point and "sensitivity" in point
        else f"operating point: {point or 'none'}"
    )
    rows: list[list[object]] = [
        [m["name"], f"{m['value']:.3f}", f"{m['low']:.3f} to {m['high']:.3f}", f"{m['normal']} / {m['abnormal']}"]
        for m in found["metrics"]
    ]
    if rows:
        print_table("", ["figure of its training", "value", "95 % interval", "normal / abnormal films"], rows)
    evaluation = found["evaluation"]
    if evaluation:
        demonstration = " (demonstration data)" if evaluation["demonstration"] else ""
        say(
            f"evaluation {evaluation['digest'][:12]}: AUC {evaluation['auc']:.3f} on {counted(evaluation['n'], 'film')}"
            f"{demonstration}"
        )
        if evaluation["page"]:
            say(f"  {evaluation['page']}")
    else:
        say("evaluation: none")
    _print_life(found)
    for line in model_lines(found["lineage"]):
        say(line)


def _print_life(found: dict[str, Any]) -> None:
    for entry in found["activations"]:
        say(f"active from {entry['at']}" + (" by rollback" if entry["rollback"] else ""))
    say(f"studies with its answer now: {found['studies_decided']}")
    if found["shadow"]:
        shadow = found["shadow"]
        studies = counted(shadow["studies"], "study", "studies")
        say(
            f"silent reading: {shadow['days']:.1f} days, {studies}, {shadow['below']} below the "
            f"operating point, {shadow['agreeing']} on the side of their conclusion; of {shadow['reported']} with a "
            f"report {shadow['abnormal']} with a finding, {shadow['missed']} of these below"
        )
    if found["shadow_note"]:
        say(f"silent reading was switched off: {found['shadow_note']}")
    for signature in found["signatures"]:
        say(f"{signature['kind']} signed by {signature['user']} {signature['signed_at']}: {signature['reason']}")
        for name, why in signature["waivers"].items():
            say(f"  waived {name}: {why}")
        if signature["withdrawn"]:
            gone = signature["withdrawn"]
            say(f"  withdrawn by {gone['user']} {gone['at']}: {gone['reason']}")
