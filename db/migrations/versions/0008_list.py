"""What the list of studies shows and filters by; saved views; opened studies"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from clearfilm.ages import age_years
from clearfilm.names import search_key

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
ADDED: tuple[sa.Column[Any], ...] = (
    sa.Column("delivered_at", TIME, nullable=True, comment="when a result was last sent"),
    sa.Column("search", sa.Text(), nullable=False, server_default="", comment="clearfilm.names.search_key"),
    sa.Column("age_years", sa.Float(), nullable=True, comment="at the examination"),
    sa.Column("sender", sa.String(length=64), nullable=True, comment="of the first film; name in the configuration"),
    sa.Column("location", sa.Text(), nullable=True, comment="(0038,0300) LO, (0008,1040) LO or (0032,1033) LO"),
    sa.Column(
        "reading",
        sa.String(length=32),
        sa.CheckConstraint("reading IN ('opened', 'agreed', 'disagreed', 'reported')", name="reading"),
        nullable=True,
        comment="since the last film came",
    ),
    sa.Column("read_at", TIME, nullable=True, comment="reported, agreed or disagreed: waits no more"),
    sa.Column(
        "withheld",
        sa.Boolean(),
        nullable=False,
        server_default=sa.false(),
        comment="as its placement: readers see no answer before the report",
    ),
    sa.Column(
        "lowered_until",
        TIME,
        nullable=True,
        comment="read later until then by its placement; a time that is over: its longest wait was reached",
    ),
)
LISTED = (
    "first_received_at",
    "read_at",
    "state",
    "concluded_at",
    "delivered_at",
    "decision",
    "priority",
    "reading",
    "withheld",
    "lowered_until",
    "sender",
    "patient_sex",
    "age_years",
    "location",
)
PARTIAL = (
    ("ix_jobs_failed", "jobs", "study_id", "state = 'failed'"),
    ("ix_deliveries_open", "deliveries", "result_id", "state IN ('waiting', 'failed')"),
)


def upgrade() -> None:
    # One by one: a batch would drop and make SQLite's table anew, and everything that belongs to a study with it.
    for column in ADDED:
        op.add_column("studies", column)
    op.add_column("instances", sa.Column("view_position", sa.Text(), nullable=True, comment="(0018,5101) CS"))
    op.create_table(
        "saved_views",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("query", sa.Text(), nullable=False, comment="filters and order, as in the address"),
        sa.Column("shared", sa.Boolean(), nullable=False, comment="every reader sees it"),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_saved_views")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_saved_views_user_id_users"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("user_id", "name", name=op.f("uq_saved_views_user_id_name")),
    )
    op.create_table(
        "openings",
        sa.Column("study_id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("opened_at", TIME, nullable=False, comment="last time"),
        sa.PrimaryKeyConstraint("study_id", "user_id", name=op.f("pk_openings")),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_openings_study_id_studies"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_openings_user_id_users"), ondelete="CASCADE"),
    )
    op.create_index(op.f("ix_openings_user_id"), "openings", ["user_id"])
    _fill()
    op.create_index("ix_studies_list", "studies", list(LISTED))
    for name, table, indexed, wanted in PARTIAL:
        where = sa.text(wanted)
        op.create_index(name, table, [indexed], sqlite_where=where, postgresql_where=where)


def _fill() -> None:
    connection = op.get_bind()
    tables = ("studies", "instances", "reports", "deliveries", "results", "placements")
    study, instance, report, delivery, result, placement = (
        sa.Table(name, sa.MetaData(), autoload_with=connection) for name in tables
    )
    first = sa.select(instance.c.sender).where(instance.c.study_id == study.c.id).order_by(instance.c.id).limit(1)
    sent = (
        sa.select(sa.func.max(delivery.c.sent_at))
        .join(result, delivery.c.result_id == result.c.id)
        .where(result.c.study_id == study.c.id)
    )
    connection.execute(sa.update(study).values(sender=first.scalar_subquery(), delivered_at=sent.scalar_subquery()))
    counts = (report.c.study_id == study.c.id, report.c.superseded_by.is_(None), report.c.status != "preliminary")
    reported = sa.select(sa.func.min(report.c.received_at)).where(*counts)
    connection.execute(
        sa.update(study)
        .where(sa.select(report.c.id).where(*counts).exists())
        .values(reading="reported", read_at=reported.scalar_subquery())
    )
    wanted = sa.select(
        study.c.id,
        study.c.patient_name,
        study.c.patient_id,
        study.c.accession_number,
        study.c.patient_birth_date,
        study.c.study_date,
    )
    filled = [
        {
            "number": row.id,
            "search": search_key(row.patient_name, row.patient_id, row.accession_number),
            "age_years": age_years(None, row.patient_birth_date, row.study_date),
        }
        for row in connection.execute(wanted)
    ]
    if filled:
        connection.execute(sa.update(study).where(study.c.id == sa.bindparam("number")), filled)
    of_study = sa.select(placement.c.returns_at).where(
        placement.c.study_id == study.c.id, placement.c.superseded_at.is_(None), placement.c.level == "later"
    )
    withheld = sa.select(placement.c.id).where(
        placement.c.study_id == study.c.id, placement.c.superseded_at.is_(None), placement.c.withheld
    )
    connection.execute(sa.update(study).values(lowered_until=of_study.scalar_subquery(), withheld=withheld.exists()))


def downgrade() -> None:
    for name, table, _, _ in PARTIAL:
        op.drop_index(name, table)
    op.drop_index("ix_studies_list", "studies")
    op.drop_table("openings")
    op.drop_table("saved_views")
    with op.batch_alter_table("instances") as batch_op:
        batch_op.drop_column("view_position")
    with op.batch_alter_table("studies") as batch_op:
        for column in ADDED:
            batch_op.drop_column(column.name)
