"""Rules, channels, and every message until it is delivered."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    """Adds to what is there."""
    for name in ("rules", "channels"):
        op.create_table(
            name,
            sa.Column("name", sa.String(64), primary_key=True),
            sa.Column("spec", sa.JSON, nullable=False),
            sa.Column("changed_at", sa.Float, nullable=False),
            sa.Column("changed_by", sa.String(80), nullable=False),
        )
    op.create_table(
        "firings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("event_id", sa.Integer, nullable=False),
        sa.Column("rule", sa.String(64), nullable=False),
        sa.Column("camera_id", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("quiet", sa.Boolean, nullable=False),
        sa.Column("escalate_at", sa.Float),
        sa.UniqueConstraint("event_id", "rule"),
    )
    op.create_index("firings_camera", "firings", ["rule", "camera_id", "at"])
    op.create_index("firings_escalate", "firings", ["escalate_at"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("channel", sa.String(64), nullable=False),
        sa.Column("event_id", sa.Integer, nullable=False),
        sa.Column("rule", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("message", sa.JSON, nullable=False),
        sa.Column("made_at", sa.Float, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("error", sa.Text),
        sa.UniqueConstraint("event_id", "rule", "channel", "kind"),
    )
    op.create_index("deliveries_due", "deliveries", ["state", "due_at"])
    op.create_table(
        "cursors",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
    )
