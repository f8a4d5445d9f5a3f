"""When films came from whom."""

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Instance


def last_films(session: Session, names: Iterable[str]) -> dict[str, datetime | None]:
    """When the last film of each sender came; None: none is here. One look-up in an index for each."""
    return {
        name: session.scalar(
            select(Instance.received_at).where(Instance.sender == name).order_by(Instance.received_at.desc()).limit(1)
        )
        for name in names
    }


def films_since(session: Session, name: str, since: datetime) -> int:
    """How many films a sender has sent since a time."""
    count = select(func.count()).where(Instance.sender == name, Instance.received_at >= since)
    return session.scalar(count) or 0


def hours_heard(session: Session, name: str, since: datetime) -> set[datetime]:
    """The full hours (UTC) since a time in which at least one film of a sender came."""
    if session.get_bind().dialect.name == "sqlite":
        hour = func.strftime("%Y-%m-%dT%H", Instance.received_at)
    else:
        hour = func.to_char(func.timezone("UTC", Instance.received_at), 'YYYY-MM-DD"T"HH24')
    rows = session.scalars(select(hour).where(Instance.sender == name, Instance.received_at >= since).distinct())
    return {datetime.strptime(row, "%Y-%m-%dT%H").replace(tzinfo=UTC) for row in rows}
