"""When the message was sent that an alert is over"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("alerts", sa.Column("mailed_over_at", TIME, nullable=True))
    op.add_column("alerts", sa.Column("posted_over_at", TIME, nullable=True))
    # What was over before is no news.
    op.execute("UPDATE alerts SET mailed_over_at = closed_at, posted_over_at = closed_at WHERE closed_at IS NOT NULL")


def downgrade() -> None:
    with op.batch_alter_table("alerts") as table:
        table.drop_column("posted_over_at")
        table.drop_column("mailed_over_at")
