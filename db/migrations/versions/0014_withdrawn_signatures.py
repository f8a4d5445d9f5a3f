"""Signatures for a promotion that were taken back"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model_signatures", sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("model_signatures", sa.Column("withdrawn_by", sa.String(length=128), nullable=True))
    op.add_column("model_signatures", sa.Column("withdrawn_reason", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("model_signatures") as table:
        table.drop_column("withdrawn_reason")
        table.drop_column("withdrawn_by")
        table.drop_column("withdrawn_at")
