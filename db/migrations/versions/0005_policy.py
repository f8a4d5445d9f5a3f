"""Triage policy: stages, devices, placements"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("reports", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_reports_patient_id"), ["patient_id"], unique=False)
    op.create_table(
        "devices",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sender", sa.String(length=64), nullable=False, comment="name in the configuration"),
        sa.Column("manufacturer", sa.Text(), nullable=False, comment="(0008,0070) LO"),
        sa.Column("model", sa.Text(), nullable=False, comment="(0008,1090) LO"),
        sa.Column("serial", sa.Text(), nullable=False, comment="(0018,1000) LO, else (0008,1010) SH"),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("signed_by", sa.String(length=128), nullable=True, comment="first of two"),
        sa.Column("signed_reason", sa.Text(), nullable=True),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("released_by", sa.String(length=128), nullable=True, comment="second of two"),
        sa.Column("released_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_devices")),
        sa.UniqueConstraint(
            "sender", "manufacturer", "model", "serial", name=op.f("uq_devices_sender_manufacturer_model_serial")
        ),
    )
    op.create_table(
        "policy_steps",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "stage",
            sa.Enum(
                "off",
                "shadow",
                "supervised",
                "active",
                name="stage",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
            comment="in force from now on",
        ),
        sa.Column(
            "proposed", sa.String(length=32), nullable=True, comment="stage signed once, waits for another person"
        ),
        sa.Column("actor", sa.String(length=128), nullable=False, comment="who signed last, or the process"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False, comment="first signature, and the figures at that time"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_steps")),
    )
    op.create_table(
        "placements",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("study_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False, comment="of the conclusion"),
        sa.Column(
            "level",
            sa.Enum("priority", "usual", "later", name="level", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("tagged", sa.Boolean(), nullable=False, comment="clear, and no guard speaks against it"),
        sa.Column("shown", sa.Boolean(), nullable=False, comment="readers see the tag"),
        sa.Column("blind", sa.Boolean(), nullable=False, comment="tagged, but in the blind share"),
        sa.Column("withheld", sa.Boolean(), nullable=False, comment="readers see no answer before the report"),
        sa.Column(
            "returns_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="later only: back at its place at the latest",
        ),
        sa.Column("reasons", sa.JSON(), nullable=False, comment="rule and words for this study"),
        sa.Column(
            "stage",
            sa.Enum(
                "off",
                "shadow",
                "supervised",
                "active",
                name="stage",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("policy_version", sa.String(length=64), nullable=False, comment="of rules and settings"),
        sa.Column("model_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("bundle_digest", sa.String(length=64), nullable=True),
        sa.Column("operating_point", sa.Double(), nullable=True, comment="probability"),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("superseded_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_placements_model_id_models")),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_placements_study_id_studies"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_placements")),
    )
    with op.batch_alter_table("placements", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_placements_decided_at"), ["decided_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_placements_model_id"), ["model_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_placements_study_id"), ["study_id"], unique=False)
        batch_op.create_index(
            "ix_placements_blind",
            ["study_id"],
            unique=False,
            sqlite_where=sa.text("superseded_at IS NULL AND blind = 1"),
            postgresql_where=sa.text("superseded_at IS NULL AND blind"),
        )
        batch_op.create_index(
            "ix_placements_waiting",
            ["returns_at"],
            unique=False,
            sqlite_where=sa.text("superseded_at IS NULL AND level = 'later'"),
            postgresql_where=sa.text("superseded_at IS NULL AND level = 'later'"),
        )
        batch_op.create_index(
            "uq_placements_current",
            ["study_id"],
            unique=True,
            sqlite_where=sa.text("superseded_at IS NULL"),
            postgresql_where=sa.text("superseded_at IS NULL"),
        )


def downgrade() -> None:
    with op.batch_alter_table("placements", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_placements_current",
            sqlite_where=sa.text("superseded_at IS NULL"),
            postgresql_where=sa.text("superseded_at IS NULL"),
        )
        batch_op.drop_index("ix_placements_blind")
        batch_op.drop_index(
            "ix_placements_waiting",
            sqlite_where=sa.text("superseded_at IS NULL AND level = 'later'"),
            postgresql_where=sa.text("superseded_at IS NULL AND level = 'later'"),
        )
        batch_op.drop_index(batch_op.f("ix_placements_study_id"))
        batch_op.drop_index(batch_op.f("ix_placements_model_id"))
        batch_op.drop_index(batch_op.f("ix_placements_decided_at"))

    op.drop_table("placements")
    op.drop_table("policy_steps")
    op.drop_table("devices")
    with op.batch_alter_table("reports", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_reports_patient_id"))
