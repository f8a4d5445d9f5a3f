"""Radiologists' reports and their audits"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reports",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False, comment="of identity, status, time and text"),
        sa.Column(
            "source",
            sa.Enum("csv", "hl7", "sr", name="reportsource", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column(
            "status",
            sa.Enum(
                "preliminary",
                "final",
                "addendum",
                name="reportstatus",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("accession_number", sa.Text(), nullable=True),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("patient_id", sa.Text(), nullable=True),
        sa.Column("findings", sa.Text(), nullable=False),
        sa.Column("impression", sa.Text(), nullable=False),
        sa.Column("language", sa.String(length=8), nullable=False, comment="zh, en or mixed"),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True, comment="as the report tells"),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("study_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("superseded_by", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("label", sa.String(length=16), nullable=True, comment="of the current report, with its addenda"),
        sa.Column("rule", sa.String(length=32), nullable=True),
        sa.Column("span", sa.Text(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=True),
        sa.Column("lexicon_version", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_reports_study_id_studies"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["superseded_by"], ["reports.id"], name=op.f("fk_reports_superseded_by_reports"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reports")),
        sa.UniqueConstraint("digest", name=op.f("uq_reports_digest")),
    )
    with op.batch_alter_table("reports", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_reports_accession_number"), ["accession_number"], unique=False)
        batch_op.create_index(batch_op.f("ix_reports_label"), ["label"], unique=False)
        batch_op.create_index(batch_op.f("ix_reports_study_instance_uid"), ["study_instance_uid"], unique=False)
        batch_op.create_index(batch_op.f("ix_reports_superseded_by"), ["superseded_by"], unique=False)
        batch_op.create_index("ix_reports_waiting", ["study_id", "superseded_by"], unique=False)

    op.create_table(
        "report_audits",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("report_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("reader", sa.String(length=128), nullable=False),
        sa.Column("label", sa.String(length=16), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["report_id"], ["reports.id"], name=op.f("fk_report_audits_report_id_reports"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report_audits")),
        sa.UniqueConstraint("report_id", "reader", name=op.f("uq_report_audits_report_id_reader")),
    )


def downgrade() -> None:
    op.drop_table("report_audits")
    with op.batch_alter_table("reports", schema=None) as batch_op:
        batch_op.drop_index("ix_reports_waiting")
        batch_op.drop_index(batch_op.f("ix_reports_superseded_by"))
        batch_op.drop_index(batch_op.f("ix_reports_study_instance_uid"))
        batch_op.drop_index(batch_op.f("ix_reports_label"))
        batch_op.drop_index(batch_op.f("ix_reports_accession_number"))

    op.drop_table("reports")
