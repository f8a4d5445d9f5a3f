"""Readers' verdicts"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "verdicts",
        sa.Column("id", ID, nullable=False),
        sa.Column("study_id", ID, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False, comment="of the study's conclusion"),
        sa.Column(
            "answer",
            sa.Enum(
                "no_significant_finding",
                "significant_finding",
                "not_analysed",
                name="decision",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
            comment="of that revision",
        ),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("agrees", sa.Boolean(), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False, comment="given before the reader was shown the answer"),
        sa.Column("corrects", sa.Boolean(), nullable=False, comment="a corrected result is sent"),
        sa.Column("comment", sa.Text(), nullable=False, comment="stays at this node"),
        sa.Column("token", sa.String(length=64), nullable=False, comment="of the form: sent twice, it counts once"),
        sa.Column("at", TIME, nullable=False),
        sa.Column("withdrawn_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_verdicts_study_id_studies"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_verdicts_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdicts")),
        sa.UniqueConstraint("token", name=op.f("uq_verdicts_token")),
    )
    op.create_index("ix_verdicts_study_id_revision", "verdicts", ["study_id", "revision"])
    op.create_index(op.f("ix_verdicts_user_id"), "verdicts", ["user_id"])
    op.create_index(op.f("ix_verdicts_at"), "verdicts", ["at"])
