"""`clearfilm audit`: the chain of the audit trail."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sqlalchemy import func, select

from clearfilm.counts import counted
from cli.node import opened
from cli.terminal import print_json, say
from db import audit
from db.models import Audit


def verify(config_path: Path, *, as_json: bool, contains: str | None = None) -> int:
    """Check every record against its forerunner.

    Parameters
    ----------
    config_path : pathlib.Path
        The configuration file.
    as_json : bool
        For programs.
    contains : str, optional
        A hash that was noted elsewhere: a chain cannot tell by itself that its end is missing.

    Returns
    -------
    int
        0 if the chain holds, and contains the hash.
    """
    with opened(config_path) as (_, database), database.read() as session:
        broken = audit.first_broken(session)
        number = session.scalar(select(func.count()).select_from(Audit)) or 0
        is_there = contains is None or session.scalar(select(Audit.id).where(Audit.hash == contains)) is not None
        last = session.scalar(select(Audit.hash).order_by(Audit.id.desc()).limit(1))
    if as_json:
        holds = broken is None and is_there
        print_json({"holds": holds, "records": number, "first_broken": broken, "last_hash": last})
    elif not is_there:
        say(f"no record has the hash {contains}: the end of the chain was cut off, or this is another database")
    elif broken is None:
        say(f"the chain of {counted(number, 'record')} holds; the last hash is {last}")
    else:
        say(f"the chain is broken at record {broken}: it was changed, or one before it was removed")
    return 0 if broken is None and is_there else 1


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
