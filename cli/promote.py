"""`clearfilm model promote | rollback`."""

import getpass
import sys
from pathlib import Path
from typing import Any, Final

import typer

from clearfilm.counts import counted
from clearfilm.crashpoints import crash_point
from clearfilm.errors import ClearfilmError, UsageError
from clearfilm.promotion import as_json as gates_as_json
from clearfilm.vision.bundle import fault
from cli.models import facts
from cli.node import opened
from cli.terminal import print_json, print_table, say
from db import promotion, registry
from db.governance import Signature
from db.models import ModelBundle
from db.promotion import NEEDED_SIGNATURES, Ballot, Switch

NO_REASON: Final = "no reason given"


def promote(config_path: Path, digest: str, *, user: str, reason: str | None, waive: list[str], as_json: bool) -> int:
    """Measure the gates and sign.

    Returns
    -------
    int
        Exit code: 0 if it was signed, 1 if a gate blocks.

    Raises
    ------
    PromotionError, BundleError, UsageError
    """
    waivers = parse_waivers(waive)
    reason = _asked_for(reason)
    with opened(config_path) as (config, database):
        with database.read() as session:
            row = registry.find(session, digest)
        fault = fault_of(row)
        with database.begin() as session:
            row = registry.find(session, row.digest)
            ballot, switch = promotion.sign(
                session,
                row,
                fault=fault,
                limits=config.promotion,
                user=user,
                reason=reason,
                waivers=waivers,
                system_user=getpass.getuser(),
                now=database.now(session),
            )
        crash_point("promotion-committed")
        with database.read() as session:
            decided = registry.count_decided_by(session, switch.gone) if switch and switch.gone else 0
    if as_json:
        print_json({**ballot_facts(ballot), "activated": switch is not None, "model": facts(row)})
    else:
        print_gates(ballot)
        _print_standing(row, ballot, switch, decided)
    return 1 if ballot.blocking else 0


def withdraw_signatures(config_path: Path, digest: str, *, user: str, reason: str | None, as_json: bool) -> None:
    """Take the signatures that wait for a second one back. Raises PromotionError, BundleError, UsageError."""
    reason = _asked_for(reason)
    with opened(config_path) as (_, database), database.begin() as session:
        row = registry.find(session, digest)
        names = promotion.withdraw(
            session, row, user=user, reason=reason, system_user=getpass.getuser(), now=database.now(session)
        )
    if as_json:
        print_json({"digest": row.digest, "withdrawn": names})
    else:
        say(f"withdrawn: {', '.join(names)} for {row.name} {row.version} ({row.digest[:12]})")


def _asked_for(reason: str | None) -> str:
    """A reason: from the option, from whoever sits at the terminal, or the words that none was given."""
    if reason is not None:
        return reason
    return str(typer.prompt("Why?")) if sys.stdin.isatty() else NO_REASON


def parse_waivers(texts: list[str]) -> dict[str, str]:
    """``GATE=REASON`` to a mapping. Raises UsageError."""
    waivers: dict[str, str] = {}
    for text in texts:
        name, equals, why = text.partition("=")
        if not equals or not why.strip():
            raise UsageError(f"--waive {text}: must be GATE=REASON")
        waivers[name.strip()] = why.strip()
    return waivers


def fault_of(row: ModelBundle) -> str | None:
    """What is wrong with a bundle's files; None: they are unaltered."""
    return fault(Path(row.path), row.digest)


def ballot_facts(ballot: Ballot) -> dict[str, Any]:
    """Where a promotion stands, as JSON values."""
    return {
        "gates": gates_as_json(ballot.gates),
        "blocking": [gate.name for gate in ballot.blocking],
        "waivers": dict(ballot.waivers),
        "fingerprint": ballot.fingerprint,
        "signatures": [signature_facts(signature) for signature in ballot.signatures],
    }


def signature_facts(signature: Signature) -> dict[str, Any]:
    """A signature as JSON values."""
    return {
        "kind": signature.kind.value,
        "user": signature.user,
        "reason": signature.reason,
        "waivers": signature.waivers,
        "signed_at": signature.signed_at,
        "gates_digest": signature.gates_digest,
        "withdrawn": {
            "at": signature.withdrawn_at,
            "user": signature.withdrawn_by,
            "reason": signature.withdrawn_reason,
        }
        if signature.withdrawn_at
        else None,
    }


def print_gates(ballot: Ballot) -> None:
    """All gates, and loudly what was waived."""
    rows: list[list[object]] = []
    for gate in ballot.gates:
        verdict = "passed" if gate.passed else "WAIVED" if gate.name in ballot.waivers else "FAILED"
        rows.append([gate.name, verdict, gate.title, gate.measured, gate.wanted])
    print_table("", ["gate", "", "what", "measured", "wanted"], rows)
    failed = [gate for gate in ballot.gates if not gate.passed]
    waived = [gate.name for gate in failed if gate.name in ballot.waivers]
    if waived:
        say(f"WARNING: {len(waived)} of {len(ballot.gates)} gates failed and do not count, because somebody said so:")
        for name in waived:
            say(f"  {name}: {ballot.waivers[name]}")


def _print_standing(row: ModelBundle, ballot: Ballot, switch: Switch | None, decided: int) -> None:
    if ballot.blocking:
        say(f"not signed: {', '.join(gate.name for gate in ballot.blocking)} failed")
        if all(gate.waivable for gate in ballot.blocking):
            say("a gate that shall not count needs --waive GATE=REASON; the reason is kept under your name")
        return
    say(f"signed by {', '.join(signature.user for signature in ballot.signatures)}")
    if switch is None:
        missing = NEEDED_SIGNATURES - len(ballot.signatures)
        say(f"{missing} more signature of another user activates {row.name} {row.version} ({row.digest[:12]})")
        return
    say(f"active: {row.name} {row.version} ({row.digest[:12]})")
    if switch.gone:
        say(
            f"retired: {switch.gone.name} {switch.gone.version} ({switch.gone.digest[:12]}); "
            f"studies with its answer: {decided}"
        )


def roll_back(
    config_path: Path,
    digest: str | None,
    *,
    user: str | None,
    reason: str | None,
    list_studies: bool,
    as_json: bool,
) -> None:
    """Go back to an earlier bundle. Raises PromotionError, BundleError, UsageError."""
    reason = _asked_for(reason)
    with opened(config_path) as (_, database):
        with database.read() as session:
            chosen = promotion.way_back(session, digest)
        fault = fault_of(chosen)
        if fault:
            raise ClearfilmError(f"bundle {chosen.digest[:12]} cannot be used any more: {fault}")
        with database.begin() as session:
            switch = promotion.roll_back(
                session,
                chosen.digest,
                user=user or getpass.getuser(),
                reason=reason,
                system_user=getpass.getuser(),
                now=database.now(session),
            )
        crash_point("promotion-committed")
        with database.read() as session:
            studies = registry.studies_decided_by(session, switch.gone) if switch.gone else []
    if as_json:
        gone = facts(switch.gone) if switch.gone else None
        told = {"studies": list(studies)} if list_studies else {}
        print_json({"active": facts(switch.chosen), "retired": gone, "studies_decided": len(studies), **told})
        return
    say(f"active: {switch.chosen.name} {switch.chosen.version} ({switch.chosen.digest[:12]})")
    if switch.gone:
        say(f"retired: {switch.gone.name} {switch.gone.version} ({switch.gone.digest[:12]})")
        say(
            f"studies with an answer of the bundle that went: {len(studies)}"
            + ("" if list_studies else "; --list names them")
        )
        if studies:
            say(f"to have them answered again: clearfilm model reconclude {switch.gone.digest[:12]}")
    if list_studies:
        for uid in studies:
            say(uid)


def reconclude(config_path: Path, digest: str, *, user: str | None, reported: bool, as_json: bool) -> None:
    """Have studies answered again whose answer is a retired bundle's. Raises PromotionError, BundleError."""
    with opened(config_path) as (_, database), database.begin() as session:
        row = registry.find(session, digest)
        number = promotion.conclude_again(
            session, row, reported=reported, actor=user or getpass.getuser(), now=database.now(session)
        )
    if as_json:
        print_json({"digest": row.digest, "studies": number})
    else:
        studies = counted(number, "study is", "studies are")
        say(f"{studies} read and concluded again; see clearfilm status")
