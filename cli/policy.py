"""`clearfilm policy show | stage | release | withdraw`."""

import getpass
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from clearfilm.config import Config
from clearfilm.errors import UsageError
from clearfilm.policy.misses import Assessment, Figures
from clearfilm.policy.rules import GUARDS
from clearfilm.policy.stages import Signature, Stage
from cli.node import opened
from cli.terminal import print_json, print_table, printable, say
from db import placements, policies
from db.policy_tables import Device, PolicyStep


def show_policy(config_path: Path, *, as_json: bool) -> None:
    """Stage, rules, devices and what the reports say."""
    with opened(config_path) as (config, database), database.read() as session:
        found = _state(session, config, database.now(session))
    if as_json:
        print_json(found)
        return
    say(f"stage: {found['stage']}: {Stage(found['stage']).words}")
    if found["proposed"]:
        say(f"signed once, waits for another person: {found['proposed']}")
    say(f"version: {found['version']}")
    for line in _miss_lines(found["misses"]):
        say(line)
    print_table("", ["concluded studies", "number"], [[name, number] for name, number in found["counts"].items()])
    print_table(
        "\nnever tagged for later:", ["rule", "when"], [[rule["rule"], rule["words"]] for rule in found["guards"]]
    )
    if found["devices"]:
        cells = [[one["number"], one["words"], one["state"], _minute(one["first_seen_at"])] for one in found["devices"]]
        print_table("\ndevices:", ["number", "device", "state", "first seen"], cells)
    if found["history"]:
        cells = [
            [step["at"], step["stage"], _signed_for(step), step["user"], step["reason"]] for step in found["history"]
        ]
        print_table("\nhistory:", ["when", "stage", "signed for", "by", "reason"], cells)


def request_stage(config_path: Path, wanted: str, user: str, reason: str) -> None:
    """Step down, or sign a step up. Raises UsageError and PolicyError."""
    stage = _stage(wanted)
    with opened(config_path) as (config, database), database.begin() as session:
        signature = Signature(user, reason, database.now(session), getpass.getuser())
        after = policies.request_step(session, config.policy, stage, signature)
        found = policies.assessment(session, config.policy, now=signature.at)
    if after.proposal:
        say(f"signed: {stage}; it begins when another person signs too. The stage is still {after.stage}")
        for line in _miss_lines(asdict(found) if found else None):
            say(line)
    else:
        say(f"stage: {after.stage}: {after.stage.words}")


def withdraw_step(config_path: Path, proposed: str, user: str, reason: str) -> None:
    """Take a signed step up back. Raises UsageError and PolicyError."""
    stage = _stage(proposed)
    with opened(config_path) as (config, database), database.begin() as session:
        signature = Signature(user, reason, database.now(session), getpass.getuser())
        after = policies.withdraw_step(session, config.policy, stage, signature)
    say(f"withdrawn: {stage}; the stage is still {after.stage}")


def _stage(name: str) -> Stage:
    try:
        return Stage(name)
    except ValueError:
        raise UsageError(f"there is no stage {name}; there are: {', '.join(Stage)}") from None


def release_device(config_path: Path, number: int, user: str, reason: str) -> None:
    """Sign the release of a device. Raises PolicyError."""
    with opened(config_path) as (_, database), database.begin() as session:
        device = policies.release(session, number, Signature(user, reason, database.now(session), getpass.getuser()))
    if device.released_at:
        say(f"released: {printable(_words(device))}")
    else:
        say(f"signed: {printable(_words(device))}; it is released when another person signs too")


def withdraw_device(config_path: Path, number: int, user: str, reason: str) -> None:
    """Take a device's release back. Raises PolicyError."""
    with opened(config_path) as (_, database), database.begin() as session:
        device = policies.withdraw_release(
            session, number, Signature(user, reason, database.now(session), getpass.getuser())
        )
    say(f"not released any more: {printable(_words(device))}")


def _state(session: Session, config: Config, now: datetime) -> dict[str, Any]:
    standing = policies.in_force(session, config.policy).standing
    found = policies.assessment(session, config.policy, now=now)
    return {
        "stage": standing.stage.value,
        "proposed": standing.proposal.stage.value if standing.proposal else None,
        "version": config.policy.version,
        "settings_digest": config.policy.digest,
        "misses": asdict(found) if found else None,
        "counts": placements.counts(session, standing.stage, now=now),
        "guards": [{"rule": guard.id, "words": guard.words} for guard in GUARDS],
        "devices": [_device(device) for device in policies.devices(session)],
        "history": [_step(row) for row in policies.history(session)],
    }


def _device(device: Device) -> dict[str, Any]:
    signed = f"signed by {device.signed_by}" if device.signed_by else "new"
    return {
        "number": device.id,
        "words": _words(device),
        "state": "released" if device.released_at else signed,
        "first_seen_at": device.first_seen_at,
        "released_at": device.released_at,
        "released_by": [device.signed_by, device.released_by] if device.released_at else None,
    }


def _words(device: Device) -> str:
    return policies.DeviceIdentity(device.sender, device.manufacturer, device.model, device.serial).words


def _step(row: PolicyStep) -> dict[str, Any]:
    return {
        "at": row.at,
        "stage": row.stage.value,
        "proposed": row.proposed,
        "user": row.actor,
        "reason": row.reason,
        **row.detail,
    }


def _signed_for(step: dict[str, Any]) -> str | None:
    return f"withdrawn: {step['withdrawn']['stage']}" if "withdrawn" in step else step["proposed"]


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _miss_lines(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["missed: no target, or no active model"]
    assessment = Assessment(found["target"], Figures(**found["unseen"]), Figures(**found["everything"]), found["alarm"])
    lines = [f"missed, of studies with a finding by their report (target at most {assessment.target:.1%}):"]
    lines += [
        f"  {name}: {_figures(figures)}"
        for name, figures in (("read without an answer", assessment.unseen), ("all", assessment.everything))
    ]
    return [*lines, f"ALARM: {assessment.alarm}"] if assessment.alarm else lines


def _figures(figures: Figures) -> str:
    if figures.rate is None:
        return "no report with a finding yet"
    return (
        f"{figures.missed} of {figures.findings}, {figures.rate:.1%} "
        f"(95 %: {figures.low:.1%} to {figures.high:.1%}; above {figures.running_low:.1%} at any time)"
    )
