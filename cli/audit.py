"""`clearfilm audit`: the chain of the audit trail."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sqlalchemy import func, select

from cli.node import opened
from cli.terminal import print_json, say
from db import audit
from db.models import Audit


def verify(config_path: Path, *, as_json: bool) -> int:
    """Check every record against its forerunner; 0 if the chain holds."""
    with opened(config_path) as (_, database), database.read() as session:
        broken = audit.first_broken(session)
        number = session.scalar(select(func.count()).select_from(Audit)) or 0
        last = session.scalar(select(Audit.hash).order_by(Audit.id.desc()).limit(1))
    if as_json:
        print_json({"holds": broken is None, "records": number, "first_broken": broken, "last_hash": last})
    elif broken is None:
        say(f"the chain of {number} records holds; the last hash is {last}")
    else:
        say(f"the chain is broken at record {broken}: it was changed, or one before it was removed")
    return 0 if broken is None else 1


def export(config_path: Path, out: Path | None) -> None:
    """Write every record as a line of JSON, in the order of the chain."""
    with opened(config_path) as (_, database), database.read() as session, _target(out) as target:
        for entry in session.scalars(select(Audit).order_by(Audit.id).execution_options(yield_per=1000)):
            record = {column.key: getattr(entry, column.key) for column in Audit.__table__.columns}
            target.write(json.dumps(record, default=str, ensure_ascii=True) + "\n")


@contextmanager
def _target(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    with out.open("w", encoding="utf-8") as target:
        yield target
