"""Saved views of the list: a name for filters and an order, private or shared."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint, delete, func, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from clearfilm.errors import UsageError
from db.models import Base, Id

MOST_VIEWS = 20


class SavedView(Base):
    """A view that a user has saved."""

    __tablename__ = "saved_views"
    __table_args__ = (UniqueConstraint("user_id", "name"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(64))
    query: Mapped[str] = mapped_column(Text, comment="filters and order, as in the address")
    shared: Mapped[bool] = mapped_column(comment="every reader sees it")
    created_at: Mapped[datetime]


def seen_by(session: Session, user_id: int) -> Sequence[SavedView]:
    """A user's own views and the shared ones, oldest first."""
    return session.scalars(
        select(SavedView).where(or_(SavedView.user_id == user_id, SavedView.shared)).order_by(SavedView.id)
    ).all()


def save(session: Session, user_id: int, name: str, query: str, *, shared: bool, now: datetime) -> SavedView:
    """Keep a view; one's own view of the same name is replaced.

    Raises
    ------
    UsageError
        If the user has `MOST_VIEWS` already.
    """
    view = session.scalars(select(SavedView).where(SavedView.user_id == user_id, SavedView.name == name)).one_or_none()
    if view is not None:
        view.query, view.shared = query, shared
        return view
    if (session.scalar(select(func.count()).where(SavedView.user_id == user_id)) or 0) >= MOST_VIEWS:
        raise UsageError(f"a user has at most {MOST_VIEWS} views; remove one first")
    view = SavedView(user_id=user_id, name=name, query=query, shared=shared, created_at=now)
    session.add(view)
    session.flush()
    return view


def remove(session: Session, user_id: int, view_id: int) -> bool:
    """Forget a view of one's own; False if there is none of this number."""
    own = delete(SavedView).where(SavedView.id == view_id, SavedView.user_id == user_id).returning(SavedView.id)
    return session.execute(own).first() is not None
