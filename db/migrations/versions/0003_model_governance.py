"""Evaluations, gates, signatures and activations of models; silent readings; training runs"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("analyses", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "shadow",
                sa.Boolean(),
                nullable=False,
                server_default=sa.false(),
                comment="read silently: never part of a conclusion",
            )
        )
        batch_op.alter_column("map_path", existing_type=sa.Text(), nullable=True)

    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.add_column(sa.Column("evaluation", sa.JSON(), nullable=True, comment="its report.json, whole"))
        batch_op.add_column(
            sa.Column("evaluation_digest", sa.String(length=64), nullable=True, comment="SHA-256 of that file")
        )
        batch_op.add_column(
            sa.Column("gates", sa.JSON(), nullable=True, comment="promotion gates when they were last measured")
        )
        batch_op.add_column(
            sa.Column(
                "shadow_since", sa.DateTime(timezone=True), nullable=True, comment="latest beginning of silent reading"
            )
        )
        batch_op.add_column(
            sa.Column("shadow_note", sa.Text(), nullable=True, comment="why silent reading was switched off")
        )

    op.create_table(
        "model_signatures",
        sa.Column("id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "promotion", "rollback", name="signaturekind", native_enum=False, create_constraint=True, length=32
            ),
            nullable=False,
        ),
        sa.Column("signed_by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("waivers", sa.JSON(), nullable=False, comment="failed gate to the reason why it does not count"),
        sa.Column(
            "gates_digest",
            sa.String(length=64),
            nullable=True,
            comment="promotion: of bundle, evaluation and gates",
        ),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_model_signatures_model_id_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_signatures")),
    )
    with op.batch_alter_table("model_signatures", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_signatures_model_id"), ["model_id"], unique=False)

    op.create_table(
        "model_activations",
        sa.Column("id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("replaced_id", ID, nullable=True),
        sa.Column("rollback", sa.Boolean(), nullable=False),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_model_activations_model_id_models")),
        sa.ForeignKeyConstraint(["replaced_id"], ["models.id"], name=op.f("fk_model_activations_replaced_id_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_activations")),
    )
    with op.batch_alter_table("model_activations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_activations_model_id"), ["model_id"], unique=False)
    # Bundles that were active before there was a history.
    op.execute(
        "INSERT INTO model_activations (model_id, rollback, activated_at) "
        "SELECT id, false, activated_at FROM models WHERE activated_at IS NOT NULL ORDER BY activated_at"
    )

    op.create_table(
        "training_runs",
        sa.Column("id", ID, nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("cohort_digest", sa.String(length=64), nullable=False),
        sa.Column("cohort_folder", sa.Text(), nullable=False),
        sa.Column("cohort", sa.JSON(), nullable=False, comment="counts by part, label and rule; no patient data"),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("started_by", sa.String(length=128), nullable=False, comment="a user, or the schedule"),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False, comment="process that trains"),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "outcome",
            sa.Enum(
                "running",
                "finished",
                "failed",
                "died",
                name="runoutcome",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("detail", sa.Text(), nullable=True, comment="why it failed"),
        sa.Column("bundle_digest", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_runs")),
        sa.UniqueConstraint("folder", name=op.f("uq_training_runs_folder")),
    )
    with op.batch_alter_table("training_runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_training_runs_bundle_digest"), ["bundle_digest"], unique=False)
        batch_op.create_index(batch_op.f("ix_training_runs_cohort_digest"), ["cohort_digest"], unique=False)
        batch_op.create_index(batch_op.f("ix_training_runs_outcome"), ["outcome"], unique=False)


def downgrade() -> None:
    op.drop_table("training_runs")
    op.drop_table("model_activations")
    op.drop_table("model_signatures")
    with op.batch_alter_table("models", schema=None) as batch_op:
        for name in ("shadow_note", "shadow_since", "gates", "evaluation_digest", "evaluation"):
            batch_op.drop_column(name)
    op.execute("DELETE FROM analyses WHERE map_path IS NULL")
    with op.batch_alter_table("analyses", schema=None) as batch_op:
        batch_op.alter_column("map_path", existing_type=sa.Text(), nullable=False)
        batch_op.drop_column("shadow")
