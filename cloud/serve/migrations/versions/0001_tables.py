"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    """From nothing."""
    key = {"primary_key": True}
    op.create_table(
        "boots",
        sa.Column("camera_id", sa.String(64), **key),
        sa.Column("boot_id", sa.String(32), **key),
        sa.Column("bundle_id", sa.String(32), nullable=False),
        sa.Column("newest", sa.BigInteger, nullable=False),
        sa.Column("next_start", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.Column("closed", sa.Boolean, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
        sa.Column("ledger_releases", sa.BigInteger, nullable=False),
        sa.Column("ledger_bits", sa.Float, nullable=False),
        sa.Column("ledger_went_back", sa.Boolean, nullable=False),
    )
    op.create_index("boots_open", "boots", ["closed"])
    op.create_table(
        "packets",
        sa.Column("camera_id", sa.String(64), **key),
        sa.Column("boot_id", sa.String(32), **key),
        sa.Column("sequence", sa.BigInteger, autoincrement=False, **key),
        sa.Column("captured_at_us", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("features", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "session_certificates",
        sa.Column("camera_id", sa.String(64), **key),
        sa.Column("boot_id", sa.String(32), **key),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("statement", sa.Text, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.Column("certificate", sa.Text, nullable=False),
    )
    op.create_table(
        "enrolment_tokens",
        sa.Column("hash", sa.String(64), **key),
        sa.Column("camera_id", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("used_for", sa.String(64)),
    )
    op.create_table(
        "windows",
        sa.Column("camera_id", sa.String(64), **key),
        sa.Column("boot_id", sa.String(32), **key),
        sa.Column("start", sa.BigInteger, autoincrement=False, **key),
        sa.Column("tier", sa.String(32), **key),
        sa.Column("end", sa.BigInteger, nullable=False),
        sa.Column("behaviour", sa.String(64), nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("probabilities", sa.JSON),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, **key),
        sa.Column("camera_id", sa.String(64), nullable=False),
        sa.Column("boot_id", sa.String(32), nullable=False),
        sa.Column("first_tick", sa.BigInteger, nullable=False),
        sa.Column("last_tick", sa.BigInteger, nullable=False),
        sa.Column("begin_us", sa.BigInteger, nullable=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("behaviour", sa.String(64), nullable=False),
        sa.Column("alert", sa.Boolean, nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("windows", sa.Integer, nullable=False),
        sa.UniqueConstraint("camera_id", "boot_id", "first_tick"),
    )
    op.create_index("events_time", "events", ["begin_us"])
