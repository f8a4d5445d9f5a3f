"""Heartbeats of processes, totals of what they count; finished jobs by time"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "processes",
        sa.Column("owner", sa.String(length=128), nullable=False, comment="as in jobs.owner"),
        sa.Column(
            "kind", sa.String(length=16), nullable=False, comment="storescp, worker, deliver, schedule, worklist"
        ),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False, comment="device, port, associations"),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_processes")),
    )
    op.create_table(
        "totals",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False, comment="JSON object, keys sorted"),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", name=op.f("pk_totals")),
    )
    op.create_index(op.f("ix_jobs_finished_at"), "jobs", ["finished_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_finished_at"), "jobs")
    op.drop_table("totals")
    op.drop_table("processes")
