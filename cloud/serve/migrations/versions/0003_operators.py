"""Events tell how many people and what happened; operators have accounts, and what they see and do about events is kept."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    """Adds to what is there."""
    op.add_column("events", sa.Column("people", sa.Integer))
    op.add_column("events", sa.Column("story", sa.JSON))
    with op.batch_alter_table("event_changes", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.alter_column("kind", type_=sa.String(16), existing_type=sa.String(8), existing_nullable=False)
    op.create_table(
        "event_care",
        sa.Column("event_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("acknowledged_at", sa.Float),
        sa.Column("acknowledged_by", sa.String(80)),
        sa.Column("judged_at", sa.Float),
        sa.Column("judged_by", sa.String(80)),
        sa.Column("label", sa.String(64)),
    )
    op.create_table(
        "event_notes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("event_id", sa.Integer, nullable=False, index=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("by", sa.String(80), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "users",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "logins",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("user", sa.String(64), nullable=False, index=True),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_table(
        "api_tokens",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("created_by", sa.String(80), nullable=False),
        sa.Column("expires_at", sa.Float),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("who", sa.String(80), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("object", sa.String(128), nullable=False),
        sqlite_autoincrement=True,
    )
