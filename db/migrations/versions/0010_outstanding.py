"""What is still to be done for a study, kept beside it by triggers"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

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
_DELIVERY = """EXISTS (
    SELECT 1 FROM results JOIN deliveries ON deliveries.result_id = results.id
    WHERE results.study_id = studies.id AND results.revision = studies.revision AND deliveries.state = '{state}'
)"""
# Of the study whose row is at hand.
OUTSTANDING = f"""CASE
    WHEN studies.state = 'failed' THEN 'failed'
    WHEN EXISTS (
        SELECT 1 FROM jobs WHERE jobs.study_id = studies.id AND jobs.state = 'failed'
        AND (jobs.revision IS NULL OR jobs.revision = studies.revision)
    ) THEN 'failed'
    WHEN {_DELIVERY.format(state="failed")} THEN 'failed'
    WHEN {_DELIVERY.format(state="waiting")} THEN 'waiting'
END"""  # noqa: S608 - here and below all words are this file's own
_OF_RESULT = "(SELECT study_id FROM results WHERE id = {row}.result_id)"
_OPEN = "{row}.state IN ('waiting', 'failed')"
# Table, what happens to a row, when that matters, and the study that it matters to. Jobs and deliveries change state
# all the time: only a few of these changes do.
WATCHED = (
    ("studies", "INSERT", "NEW.state = 'failed'", "NEW.id"),
    (
        "studies",
        "UPDATE OF state, revision",
        "OLD.state <> NEW.state OR OLD.revision <> NEW.revision",
        "NEW.id",
    ),
    ("jobs", "INSERT", "NEW.state = 'failed'", "NEW.study_id"),
    (
        "jobs",
        "UPDATE OF state",
        "OLD.state <> NEW.state AND 'failed' IN (OLD.state, NEW.state)",
        "NEW.study_id",
    ),
    ("jobs", "DELETE", "OLD.state = 'failed'", "OLD.study_id"),
    ("deliveries", "INSERT", _OPEN.format(row="NEW"), _OF_RESULT.format(row="NEW")),
    (
        "deliveries",
        "UPDATE OF state",
        f"OLD.state <> NEW.state AND ({_OPEN.format(row='OLD')} OR {_OPEN.format(row='NEW')})",
        _OF_RESULT.format(row="NEW"),
    ),
    ("deliveries", "DELETE", _OPEN.format(row="OLD"), _OF_RESULT.format(row="OLD")),
    # Its deliveries go before it, and cannot tell any more whose they were.
    ("results", "DELETE", None, "OLD.study_id"),
)


def upgrade() -> None:
    op.add_column(
        "studies",
        sa.Column(
            "outstanding",
            sa.String(length=32),
            sa.CheckConstraint("outstanding IN ('waiting', 'failed')", name="outstanding"),
            nullable=True,
            comment="kept by triggers",
        ),
    )
    op.execute(f"UPDATE studies SET outstanding = {OUTSTANDING} WHERE {OUTSTANDING} IS NOT NULL")  # noqa: S608
    op.drop_index("ix_studies_list", "studies")
    op.create_index("ix_studies_list", "studies", [*LISTED, "outstanding"])
    where = sa.text("outstanding IS NOT NULL")
    op.create_index(
        "ix_studies_outstanding",
        "studies",
        ["outstanding", "first_received_at"],
        sqlite_where=where,
        postgresql_where=where,
    )
    if _is_sqlite():
        _watch_sqlite()
    else:
        _watch_postgresql()


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _name(table: str, event: str) -> str:
    return f"outstanding_{table}_{event.split()[0].lower()}"


def _watch_sqlite() -> None:
    for table, event, when, number in WATCHED:
        condition = f"WHEN {when}" if when else ""
        op.execute(
            f"""CREATE TRIGGER {_name(table, event)} AFTER {event} ON {table} FOR EACH ROW {condition} BEGIN
                UPDATE studies SET outstanding = {OUTSTANDING}
                WHERE id = {number} AND outstanding IS NOT {OUTSTANDING};
            END"""  # noqa: S608
        )


def _watch_postgresql() -> None:
    # Two deliveries of a study may end at once. Each transaction sees only its own end until the other has committed:
    # whoever comes second waits for the lock, and its next statement sees both.
    op.execute(
        f"""CREATE FUNCTION settle_study(number bigint) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            PERFORM 1 FROM studies WHERE id = number FOR NO KEY UPDATE;
            UPDATE studies SET outstanding = {OUTSTANDING}
            WHERE id = number AND outstanding IS DISTINCT FROM {OUTSTANDING};
        END $$"""  # noqa: S608
    )
    for table, event, when, number in WATCHED:
        name = _name(table, event)
        op.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ "
            f"BEGIN PERFORM settle_study({number}); RETURN NULL; END $$"
        )
        condition = f"WHEN ({when})" if when else ""
        op.execute(f"CREATE TRIGGER {name} AFTER {event} ON {table} FOR EACH ROW {condition} EXECUTE FUNCTION {name}()")


def downgrade() -> None:
    for table, event, _, _ in WATCHED:
        if _is_sqlite():
            op.execute(f"DROP TRIGGER {_name(table, event)}")
        else:
            op.execute(f"DROP TRIGGER {_name(table, event)} ON {table}")
            op.execute(f"DROP FUNCTION {_name(table, event)}()")
    if not _is_sqlite():
        op.execute("DROP FUNCTION settle_study(bigint)")
    op.drop_index("ix_studies_outstanding", "studies")
    op.drop_index("ix_studies_list", "studies")
    op.create_index("ix_studies_list", "studies", list(LISTED))
    with op.batch_alter_table("studies") as batch_op:
        batch_op.drop_column("outstanding")
