"""Alembic's revisions of the service's tables; applied whenever the service opens its database."""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect


def migrate(connection: Connection) -> None:
    """Brings the tables up to date, from nothing or from any earlier release; keeps what they hold."""
    # A command says what is wrong in one line, and nothing else.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    tables = inspect(connection).get_table_names()
    if "boots" in tables and "alembic_version" not in tables:
        # Of the time before there were revisions.
        command.stamp(config, "0001")
    command.upgrade(config, "head")
