"""A year of a busy department, written straight into the tables: for measuring lists and pages."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, insert

from clearfilm.names import search_key
from clearfilm.policy.rules import Level
from clearfilm.policy.stages import Stage
from clearfilm.triage import Decision
from db.models import (
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    Job,
    JobKind,
    JobState,
    Reading,
    Result,
    ResultKind,
    Study,
    StudyPlacement,
    StudyState,
)
from db.session import Database

PERIOD = timedelta(days=365)
LONGEST_WAIT = timedelta(minutes=240)
_CHUNK = 2000
_FAMILY = (
    "Zhang=张",
    "Wang=王",
    "Li=李",
    "Zhao=赵",
    "Chen=陈",
    "Smith=",
    "Müller=",
    "Okafor=",
    "Shan=单",
    "Ouyang=欧阳",
)
_GIVEN = ("San=三", "Wei=伟", "Fang=芳", "Na=娜", "Min=敏", "John=", "Jörg=", "Ada=", "Lei=磊", "Xiuying=秀英")
_PLACES = ("Ward 1", "Ward 2", "ICU", "Emergency", "门诊", "急诊", "Outpatients", None)
_SENDERS = ("room-1", "room-2", "room-3", "portable", "pacs")


def fill(database: Database, studies: int, *, now: datetime, seed: int = 1) -> None:
    """Add studies, evenly over the year before `now`; the same seed gives the same studies."""
    chance = random.Random(seed)
    for start in range(1, studies + 1, _CHUNK):
        numbers = range(start, min(start + _CHUNK, studies + 1))
        rows = [_study(chance, number, now - PERIOD * (1 - number / studies), now) for number in numbers]
        with database.begin() as session:
            for table, values in _tables(rows, chance):
                session.execute(insert(cast(Table, table.__table__)), values)


def _study(chance: random.Random, number: int, received: datetime, now: datetime) -> dict[str, Any]:
    family, given = (chance.choice(names).split("=") for names in (_FAMILY, _GIVEN))
    ideographic = f"={family[1]}^{given[1]}" if family[1] and given[1] else ""
    name = f"{family[0]}^{given[0]}{ideographic}"
    age = now - received
    concluded = age > timedelta(minutes=1)
    read = age > timedelta(hours=chance.expovariate(1 / 6)) and chance.random() > 0.005
    decision = chance.choices(list(Decision), (60, 35, 5))[0] if concluded else None
    low = decision is Decision.NO_SIGNIFICANT_FINDING and chance.random() < 0.8
    blind = low and chance.random() < 0.03
    patient_id, accession = f"P{number % 70_000:07d}", f"A{number:08d}"
    return {
        "id": number,
        "study_instance_uid": f"2.25.{number}",
        "patient_name": name,
        "patient_id": patient_id,
        "patient_birth_date": f"{1935 + number % 85}0611",
        "patient_sex": chance.choice(("F", "M", "M", "F", "O")),
        "accession_number": accession,
        "study_date": f"{received:%Y%m%d}",
        "study_time": f"{received:%H%M%S}",
        "study_description": "Chest",
        "ordered_priority": None,
        "priority": chance.choices((0, 1, 2), (95, 3, 2))[0],
        "state": StudyState.CONCLUDED if concluded else StudyState.OPEN,
        "revision": int(concluded),
        "decision": decision,
        "reason": "the view is lateral" if decision is Decision.NOT_ANALYSED else None,
        "first_received_at": received,
        "last_received_at": received,
        "concluded_at": received + timedelta(seconds=20) if concluded else None,
        "delivered_at": received + timedelta(seconds=25) if concluded and not blind else None,
        "search": search_key(name, patient_id, accession),
        "age_years": float(received.year - 1935 - number % 85),
        "sender": chance.choice(_SENDERS),
        "location": chance.choice(_PLACES),
        "reading": chance.choice((Reading.REPORTED, Reading.REPORTED, Reading.AGREED)) if read else None,
        "read_at": received + min(age, timedelta(hours=3)) if read else None,
        "withheld": blind,
        "lowered_until": received + LONGEST_WAIT if low and not blind else None,
    }


def _tables(studies: list[dict[str, Any]], chance: random.Random) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    concluded = [study for study in studies if study["revision"]]
    yield Study, studies
    yield Instance, [_instance(study) for study in studies]
    yield Job, [job for study in studies for job in _jobs(study, chance)]
    if concluded:
        yield Result, [result for study in concluded for result in _results(study)]
        yield Delivery, [_delivery(study, part, chance) for study in concluded for part in (0, 1)]
        yield StudyPlacement, [_placement(study) for study in concluded]


def _instance(study: dict[str, Any]) -> dict[str, Any]:
    number = study["id"]
    not_read = study["decision"] is Decision.NOT_ANALYSED
    state = InstanceState.NOT_ANALYSED if not_read else InstanceState.ANALYSED
    return {
        "id": number,
        "study_id": number,
        "sop_instance_uid": f"2.25.{number}.1",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1",
        "series_instance_uid": f"2.25.{number}.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "digest": f"{number:064x}",
        "size": 10_000_000,
        "path": f"films/{number}.dcm",
        "sender": study["sender"],
        "calling_ae_title": "MODALITY",
        "received_at": study["first_received_at"],
        "conflict": False,
        "state": state if study["revision"] else InstanceState.QUEUED,
        "reason": study["reason"],
        "view_position": "PA",
    }


def _jobs(study: dict[str, Any], chance: random.Random) -> Iterator[dict[str, Any]]:
    for kind in JobKind:
        failed = kind is JobKind.DELIVER and chance.random() < 0.002
        done = JobState.FAILED if failed else JobState.DONE
        yield {
            "kind": kind,
            "state": done if study["revision"] else JobState.QUEUED,
            "study_id": study["id"],
            "instance_id": study["id"] if kind is JobKind.ANALYSE else None,
            "destination": "pacs" if kind is JobKind.DELIVER else "",
            "revision": 1 if kind is JobKind.DELIVER else None,
            "priority": study["priority"],
            "run_after": study["first_received_at"],
            "created_at": study["first_received_at"],
            "attempts": 1,
            "retries": 0,
            "token": 1,
            "finished_at": study["concluded_at"],
        }


def _results(study: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part, kind in enumerate(ResultKind):
        number = 2 * study["id"] + part
        yield {
            "id": number,
            "study_id": study["id"],
            "revision": 1,
            "kind": kind,
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.7",
            "sop_instance_uid": f"2.25.{number}.3",
            "series_instance_uid": f"2.25.{number}.4",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "position": part,
            "path": f"results/{number}.dcm",
            "digest": f"{number:064x}",
            "decision": study["decision"],
            "created_at": study["concluded_at"],
        }


def _delivery(study: dict[str, Any], part: int, chance: random.Random) -> dict[str, Any]:
    return {
        "result_id": 2 * study["id"] + part,
        "destination": "pacs",
        "state": chance.choices((DeliveryState.SENT, DeliveryState.WAITING, DeliveryState.FAILED), (990, 8, 2))[0],
        "attempts": 1,
        "refusals": 0,
        "created_at": study["concluded_at"],
        "sent_at": study["delivered_at"],
    }


def _placement(study: dict[str, Any]) -> dict[str, Any]:
    later = study["lowered_until"] is not None
    usual = Level.PRIORITY if study["priority"] else Level.USUAL
    return {
        "study_id": study["id"],
        "revision": 1,
        "level": Level.LATER if later else usual,
        "tagged": later or study["withheld"],
        "shown": later,
        "blind": study["withheld"],
        "withheld": study["withheld"],
        "returns_at": study["lowered_until"],
        "reasons": [{"rule": "clear", "words": "the only film is below the operating point"}],
        "stage": Stage.ACTIVE,
        "policy_version": "1-0",
        "decided_at": study["concluded_at"],
    }
