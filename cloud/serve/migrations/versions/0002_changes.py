"""Events end, and what happens to them is kept in order; boots know to where they are read, packets when they came."""

import time

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """What was read before is taken as read as far as whole windows go, and its events as over."""
    op.add_column("boots", sa.Column("read_to", sa.BigInteger, nullable=False, server_default="-1"))
    op.execute("UPDATE boots SET read_to = newest WHERE closed")
    read = 'SELECT MAX(w."end") FROM windows w WHERE w.camera_id = boots.camera_id AND w.boot_id = boots.boot_id'
    op.execute(f"UPDATE boots SET read_to = COALESCE(({read}), -1) WHERE NOT closed")
    op.add_column("packets", sa.Column("received_at", sa.Float, nullable=False, server_default=str(time.time())))
    op.add_column("events", sa.Column("ended", sa.Boolean, nullable=False, server_default=sa.true()))
    op.create_index("events_boot", "events", ["camera_id", "boot_id", "last_tick"])
    op.create_table(
        "event_changes",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("event", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
