"""Switches, associations, trusted senders, cancellations, tries of destinations, alerts"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", ID, nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "silent_sender",
                "stuck",
                "failures",
                "destination",
                "disk_low",
                "disk_forecast",
                "process_down",
                "policy",
                "backup",
                "paused",
                name="alertkind",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column(
            "subject", sa.String(length=64), nullable=False, comment="name of a sender, destination, process or stage"
        ),
        sa.Column("facts", sa.JSON(), nullable=False, comment="numbers and names for the sentence"),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("closed_at", TIME, nullable=True),
        sa.Column("acknowledged_by", sa.String(length=128), nullable=True),
        sa.Column("acknowledged_at", TIME, nullable=True),
        sa.Column("mailed_at", TIME, nullable=True),
        sa.Column("posted_at", TIME, nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True, comment="why it could not be sent"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index(
        "uq_alerts_open",
        "alerts",
        ["kind", "subject"],
        unique=True,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "associations",
        sa.Column("id", ID, nullable=False),
        sa.Column(
            "outcome",
            sa.Enum(
                "accepted", "denied", "deferred", name="outcome", native_enum=False, create_constraint=True, length=32
            ),
            nullable=False,
        ),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("called_ae_title", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("peer", sa.String(length=64), nullable=True, comment="sender or destination in the configuration"),
        sa.Column("reason", sa.Text(), nullable=False, comment="of what was not accepted"),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("stored", sa.Integer(), nullable=False, comment="C-STORE requests answered with success"),
        sa.Column("refused", sa.Integer(), nullable=False, comment="C-STORE requests answered with a failure"),
        sa.Column("refusal", sa.Text(), nullable=False, comment="why the last of these"),
        sa.Column("first_at", TIME, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_associations")),
    )
    op.create_index("ix_associations_newest", "associations", ["outcome", "id"], unique=False)
    op.create_table(
        "disk_samples",
        sa.Column("at", TIME, nullable=False),
        sa.Column("free", sa.Double(), nullable=False, comment="bytes"),
        sa.PrimaryKeyConstraint("at", name=op.f("pk_disk_samples")),
    )
    op.create_table(
        "peer_checks",
        sa.Column("id", ID, nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="echo or rehearsal"),
        sa.Column("good", sa.Boolean(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False, comment="seconds, accepted contexts"),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_peer_checks")),
    )
    op.create_index("ix_peer_checks_destination", "peer_checks", ["destination", "id"], unique=False)
    op.create_table(
        "switches",
        sa.Column(
            "stage",
            sa.Enum("receive", "analyse", "send", name="stage", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.PrimaryKeyConstraint("stage", name=op.f("pk_switches")),
    )
    op.create_table(
        "trusted_senders",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("added_by", sa.String(length=128), nullable=False),
        sa.Column("added_at", TIME, nullable=False),
        sa.Column("revoked_by", sa.String(length=128), nullable=True),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trusted_senders")),
    )
    op.create_index("ix_trusted_senders_present", "trusted_senders", ["revoked_at"], unique=False)
    op.create_table(
        "cancellations",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_cancellations_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_cancellations")),
    )
    op.create_index(op.f("ix_cancellations_due_at"), "cancellations", ["due_at"], unique=False)
    op.create_index(
        "ix_deliveries_failed",
        "deliveries",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'failed'"),
        postgresql_where=sa.text("state = 'failed'"),
    )
    op.create_index(
        "ix_instances_failed",
        "instances",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'failed'"),
        postgresql_where=sa.text("state = 'failed'"),
    )
    op.create_index("ix_instances_sender", "instances", ["sender", "received_at"], unique=False)
    op.create_index(
        "ix_studies_failed",
        "studies",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'failed'"),
        postgresql_where=sa.text("state = 'failed'"),
    )


def downgrade() -> None:
    for table in ("instances", "studies", "deliveries"):
        op.drop_index(f"ix_{table}_failed", table)
    op.drop_index("ix_instances_sender", "instances")
    for table in (
        "cancellations",
        "trusted_senders",
        "switches",
        "peer_checks",
        "disk_samples",
        "associations",
        "alerts",
    ):
        op.drop_table(table)
