"""Databases for tests: files of SQLite, and a real PostgreSQL server that the tests start on loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from ruyicam.cloud.serve.store import with_driver
from ruyicam.export.bench_session import free_port

DATABASES = ("sqlite", "postgresql")


class Postgres:
    """A server of our own; started when it is first wanted."""

    def __init__(self) -> None:
        """Raises FileNotFoundError where PostgreSQL is not installed."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not found:
            raise FileNotFoundError("PostgreSQL is not installed")
        self._bin = found[-1]
        # Not among pytest's folders: another run of pytest closes those to all users but its own.
        self._folder = tempfile.TemporaryDirectory(prefix="ruyicam-postgres-")
        self._data = Path(self._folder.name) / "data"
        # It refuses to be run by root.
        self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        if self._as:
            shutil.chown(self._folder.name, "postgres", "postgres")
        self.user = "postgres" if self._as else pwd.getpwuid(os.geteuid()).pw_name
        self.port = free_port()
        self._run("initdb", "-D", self._data, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")
        self.start()

    def _run(self, program: str, *words: object) -> None:
        command = [*self._as, str(self._bin / program), *map(str, words)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        """Waits until it takes connections."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._data}"
        self._run("pg_ctl", "-D", self._data, "-l", self._data / "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        """Ends it, and all connections to it."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        """Ends it and removes all that it holds."""
        self.stop()
        self._folder.cleanup()

    def url(self, name: str) -> str:
        """Of a database."""
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{name}"


class Databases:
    """Makes empty databases, each kind's server when it is first wanted."""

    def __init__(self, folder: Path):
        self._folder, self._count = folder, 0
        self._postgres: Postgres | None = None

    def __enter__(self) -> Databases:
        return self

    def __exit__(self, *_: object) -> None:
        if self._postgres is not None:
            self._postgres.remove()

    @property
    def postgres(self) -> Postgres:
        """The server; skips where it is not installed."""
        if self._postgres is None:
            try:
                self._postgres = Postgres()
            except FileNotFoundError as error:
                pytest.skip(str(error))
        return self._postgres

    def new(self, kind: str) -> str:
        """The URL of an empty database."""
        self._count += 1
        if kind == "sqlite":
            return f"sqlite:///{self._folder / f'{self._count}.db'}"
        name, server = f"test_{self._count}", self.postgres
        engine = create_engine(with_driver(server.url("postgres")), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return server.url(name)
