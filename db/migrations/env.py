"""Run by Alembic; the connection comes from `db.schema`."""

from alembic import context

from db import (  # noqa: F401 - their tables belong to the metadata
    accounts,
    alerts,
    associations,
    governance,
    operations,
    peer_checks,
    policy_tables,
    processes,
    readings,
    switches,
    verdicts,
    views,
)
from db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
