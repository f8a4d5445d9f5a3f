"""`clearfilm status` and `clearfilm study`."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from clearfilm.counts import counted
from clearfilm.errors import ClearfilmError
from clearfilm.triage import Decision
from cli.node import opened
from cli.terminal import print_json, print_table, printable, say
from db import overview
from db.models import DeliveryState, ResultKind, StudyState

Event: TypeAlias = tuple[datetime, str]


def print_status(config_path: Path, *, as_json: bool) -> None:
    """Counts by state."""
    with opened(config_path) as (_, database), database.read() as session:
        found = overview.counts(session, now=database.now(session))
    if as_json:
        print_json(found)
        return
    model = found["model"]
    say(f"model: {model['name']} {model['version']} ({model['digest'][:12]})" if model else "model: none yet")
    for shadow in found["shadows"]:
        about = counted(shadow["films"], "film") if shadow["reads"] else f"switched off: {shadow['switched_off']}"
        say(f"shadow: {shadow['name']} {shadow['version']} ({shadow['digest'][:12]}), {about}")
    say(f"oldest waiting job: {found['oldest_waiting_seconds']:.0f} s")
    rows = [["studies", "", name, number] for name, number in found["studies"].items()]
    rows += [["films", "", name, number] for name, number in found["instances"].items()]
    for group in ("jobs", "deliveries"):
        for key, states in found[group].items():
            rows += [[group, key, name, number] for name, number in states.items()]
    print_table("", ["what", "", "state", "count"], rows)


def print_study(config_path: Path, uid: str, *, as_json: bool) -> None:
    """One study's timeline. Raises ClearfilmError if the node does not know it."""
    with opened(config_path) as (_, database), database.read() as session:
        found = overview.timeline(session, uid)
    if found is None:
        raise ClearfilmError(f"no study has the UID {uid}")
    if as_json:
        print_json(found)
        return
    say(f"study {uid}")
    say(_heading(found))
    for line in _place(found):
        say(line)
    print_table("", ["when", "what"], [[at, what] for at, what in sorted(_events(found), key=lambda event: event[0])])


def _heading(found: dict[str, Any]) -> str:
    """Only a concluded study has an answer: what an earlier revision of an open or failed one said is over."""
    state: str = found["state"]
    if state == StudyState.OPEN:
        return state
    words = Decision(found["decision"]).words if found["decision"] else ""
    answer = [f"revision {found['revision']}, {words}"] if state == StudyState.CONCLUDED else []
    return ": ".join([state, *answer, *([found["reason"]] if found["reason"] else [])])


def _place(found: dict[str, Any]) -> list[str]:
    """Where the study stands in the list, and every reason."""
    if found["state"] != StudyState.CONCLUDED or not found["placements"]:
        return []
    placed = found["placements"][-1]
    tag = ", tagged for later" if placed["tagged"] else ""
    kept = ", results withheld from readers" if placed["withheld"] else ""
    back = f", back at its usual place at {placed['returns_at']}" if placed["returns_at"] else ""
    return [
        f"place: {placed['level']}{tag}{kept}{back} (policy {placed['policy_version']})",
        *(f"  {reason['rule']}: {printable(reason['words'])}" for reason in placed["reasons"]),
    ]


def _events(found: dict[str, Any]) -> list[Event]:
    events = [event for film in found["films"] for event in _film_events(film)]
    # All results of a revision are made when it is concluded.
    concluded = {(result["revision"], result["created_at"], result["decision"]) for result in found["results"]}
    events += [
        (at, f"concluded: revision {revision}, {Decision(decision).words}") for revision, at, decision in concluded
    ]
    events += [
        (placed["decided_at"], f"placed: {placed['level']}, stage {placed['stage']}") for placed in found["placements"]
    ]
    captures = [result for result in found["results"] if result["kind"] != ResultKind.REPORT]
    reports = [result for result in found["results"] if result["kind"] == ResultKind.REPORT]
    events += [event for result in captures for event in _result_events(result, found["jobs"])]
    # A report is made in several SOP classes, of which a destination gets one.
    events += dict.fromkeys(event for result in reports for event in _result_events(result, found["jobs"]))
    events += [(entry["at"], f"{entry['event']} ({entry['actor']})") for entry in found["events"]]
    return events


def _film_events(film: dict[str, Any]) -> Iterator[Event]:
    conflict = ", same UID as another film with other bytes" if film["conflict"] else ""
    yield film["received_at"], f"film received from {film['sender']}{conflict}"
    for reading in film["analyses"]:
        silently = " silently, by a shadow model" if reading["shadow"] else ""
        yield reading["at"], f"film analysed{silently}: score {reading['score']:.2f}, {_side(reading)}"
    if film["reason"]:
        yield film["received_at"], f"film {film['state'].replace('_', ' ')}: {film['reason']}"


def _result_events(result: dict[str, Any], jobs: list[dict[str, Any]]) -> Iterator[Event]:
    name = result["kind"].upper()
    yield result["created_at"], f"{name} made, revision {result['revision']}"
    for delivery in result["deliveries"]:
        where, state = delivery["destination"], delivery["state"]
        if delivery["sent_at"]:
            # The status is that of the last answer, which after a resend may be a refusal.
            status = "" if delivery["last_error"] else f" ({delivery['dicom_status']})"
            yield delivery["sent_at"], f"{name} stored at {where}{status}"
        if delivery["committed_at"]:
            yield delivery["committed_at"], f"{name} committed at {where}"
        if state in (DeliveryState.WAITING, DeliveryState.FAILED):
            error = f": {delivery['last_error']}" if delivery["last_error"] else ""
            verb = "waits for" if state == DeliveryState.WAITING else "failed at"
            yield _last_try(result, delivery, jobs), f"{name} {verb} {where}{error}"


def _last_try(result: dict[str, Any], delivery: dict[str, Any], jobs: list[dict[str, Any]]) -> datetime:
    """When a delivery was given up; one that waits does so since its result was made or last sent."""
    made: datetime = delivery["sent_at"] or result["created_at"]
    if delivery["state"] == DeliveryState.WAITING:
        return made
    ends = [job["finished_at"] for job in jobs if job["destination"] == delivery["destination"]]
    return max([made, *(end for end in ends if end)])


def _side(reading: dict[str, Any]) -> str:
    return "at or above the operating point" if reading["above_operating_point"] else "below the operating point"
