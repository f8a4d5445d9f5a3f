"""`clearfilm status` and `clearfilm study`."""

from pathlib import Path
from typing import Any

from clearfilm.errors import ClearfilmError
from cli.node import opened
from cli.terminal import print_json, print_table, say
from db import overview


def print_status(config_path: Path, *, as_json: bool) -> None:
    """Counts by state."""
    with opened(config_path) as (_, database), database.read() as session:
        found = overview.counts(session, now=database.now(session))
    if as_json:
        print_json(found)
        return
    model = found["model"]
    say(f"model: {model['name']} {model['version']} ({model['digest'][:12]})" if model else "model: none yet")
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
    say(f"{found['state']}: {found['decision'] or 'no decision yet'} ({found['reason'] or 'no reason'})")
    print_table("", ["when", "what"], [[at, what] for at, what in sorted(_events(found), key=lambda e: str(e[0]))])


def _events(found: dict[str, Any]) -> list[tuple[object, str]]:
    events: list[tuple[object, str]] = []
    for film in found["films"]:
        conflict = ", same UID as another film with other bytes" if film["conflict"] else ""
        events.append((film["received_at"], f"film received from {film['sender']}{conflict}"))
        events += [
            (reading["at"], f"film analysed: score {reading['score']:.2f}, {_side(reading)}")
            for reading in film["analyses"]
        ]
        if film["reason"]:
            events.append((film["received_at"], f"film {film['state'].replace('_', ' ')}: {film['reason']}"))
    for result in found["results"]:
        events.append((result["created_at"], f"{result['kind'].upper()} made, revision {result['revision']}"))
        for delivery in result["deliveries"]:
            if delivery["sent_at"]:
                where = f"{result['kind'].upper()} stored at {delivery['destination']}"
                events.append((delivery["sent_at"], f"{where} ({delivery['dicom_status']})"))
            elif delivery["last_error"]:
                events.append(("", f"{result['kind'].upper()} {delivery['state']}: {delivery['last_error']}"))
    events += [(entry["at"], f"{entry['event']} ({entry['actor']})") for entry in found["events"]]
    return events


def _side(reading: dict[str, Any]) -> str:
    return "at or above the operating point" if reading["above_operating_point"] else "below the operating point"
