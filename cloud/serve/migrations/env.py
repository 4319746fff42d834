"""Run by Alembic: brings the database of the connection that the service gives it up to date."""

from alembic import context

from ruyicam.cloud.serve.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
