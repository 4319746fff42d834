"""Who may use the service: users with passwords, programs with tokens, and the log of who saw or did what."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import Connection, delete, func, insert, select, update

from ruyicam.cloud.errors import Exit, RuyicamError

from .store import Store
from .tables import ApiToken, AuditEntry, Login, User

# How long a browser stays logged in.
LOGIN_S = 12 * 3600.0
# Failed logins of one name within a minute, after which it has to wait.
_TRIES = 5
# Names with failed logins, beyond which those of more than a minute ago are forgotten.
_NAMES = 1000
# Passwords that are looked at at once, each of which takes 64 MB, and how long others wait for their turn.
_AT_ONCE, _TURN_S = 2, 1.0
_SHORTEST_PASSWORD = 10
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class Role(StrEnum):
    """What somebody may do; each may all that those before it may."""

    VIEWER = "viewer"  # sees cameras, contours and events
    OPERATOR = "operator"  # does something about events, and takes labels home
    ADMIN = "admin"  # users, tokens, rules, the audit log

    def may(self, needed: Role) -> bool:
        """Whether this role is enough."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Identity:
    """Who asks."""

    name: str
    role: Role


class TooManyTriesError(Exception):
    """This name has to wait a minute; or too many log in at once."""


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Accounts:
    """Thread-safe. What is wrong with a request is said as RuyicamError(USAGE) with one line."""

    def __init__(self, store: Store):
        self._store = store
        self._hasher = PasswordHasher()
        # Takes the time that a user's would, so that an answer's delay does not tell who is one.
        self._nobody = self._hasher.hash(secrets.token_hex())
        self._failed: dict[str, deque[float]] = {}
        self._looking = threading.BoundedSemaphore(_AT_ONCE)

    @staticmethod
    def _check_name(name: str) -> None:
        if not _NAME.fullmatch(name):
            raise RuyicamError(Exit.USAGE, f"name is '{name}', expected 1 to 64 letters, digits, '-', '_', '.' or '@'")

    def _hash(self, password: str) -> str:
        if len(password) < _SHORTEST_PASSWORD:
            raise RuyicamError(
                Exit.USAGE, f"the password has {len(password)} characters, expected at least {_SHORTEST_PASSWORD}"
            )
        return self._hasher.hash(password)

    def users(self) -> list[User]:
        """All of them, by name."""
        return self._store.rows(select(User).order_by(User.name))

    def add_user(self, name: str, role: Role, password: str) -> None:
        """A new one."""
        self._check_name(name)
        row = {"name": name, "role": role.value, "password": self._hash(password), "created_at": time.time()}
        with self._store.write() as connection:
            if connection.scalar(self._store.insert_new(User).returning(User.name), row) is None:
                raise RuyicamError(Exit.USAGE, f"user '{name}' exists")

    def change_user(self, name: str, role: Role | None = None, password: str | None = None) -> None:
        """Another role or password; other logins of the user end."""
        values = {} if role is None else {"role": role.value}
        if password is not None:
            values["password"] = self._hash(password)
        if not values:
            return
        with self._store.write() as connection:
            if not connection.execute(update(User).where(User.name == name).values(values)).rowcount:
                raise RuyicamError(Exit.USAGE, f"user '{name}' does not exist")
            connection.execute(delete(Login).where(Login.user == name))
            self._keep_an_admin(connection)

    def remove_user(self, name: str) -> None:
        """And its logins."""
        with self._store.write() as connection:
            if not connection.execute(delete(User).where(User.name == name)).rowcount:
                raise RuyicamError(Exit.USAGE, f"user '{name}' does not exist")
            connection.execute(delete(Login).where(Login.user == name))
            self._keep_an_admin(connection)

    @staticmethod
    def _keep_an_admin(connection) -> None:
        left = connection.scalar(select(func.count()).select_from(User).where(User.role == Role.ADMIN.value))
        if not left:
            raise RuyicamError(Exit.USAGE, "there would be no user with the role admin left")

    def log_in(self, name: str, password: str) -> tuple[Identity, str] | None:
        """Who that is, and the secret that its browser keeps; None: no such user with that password. Raises
        TooManyTriesError."""
        failed, now = self._failed.get(name, ()), time.monotonic()
        if len(failed) == _TRIES and failed[0] > now - 60:
            raise TooManyTriesError
        user = next(iter(self._store.rows(select(User).where(User.name == name))), None)
        if not self._looking.acquire(timeout=_TURN_S):
            raise TooManyTriesError
        try:
            self._hasher.verify(user.password if user else self._nobody, password)
        except VerificationError:
            user = None
        finally:
            self._looking.release()
        if user is None:
            self._failed.setdefault(name, deque(maxlen=_TRIES)).append(now)
            if len(self._failed) > _NAMES:
                for old in [k for k, v in list(self._failed.items()) if v[-1] < now - 60]:
                    self._failed.pop(old, None)
            return None
        self._failed.pop(name, None)
        with self._store.write() as connection:
            return Identity(name, Role(user.role)), self._new_login(connection, name)

    @staticmethod
    def _new_login(connection: Connection, name: str) -> str:
        secret = secrets.token_urlsafe(32)
        connection.execute(delete(Login).where(Login.expires_at < time.time()))
        row = {"hash": _digest(secret), "user": name, "expires_at": time.time() + LOGIN_S}
        connection.execute(insert(Login), row)
        return secret

    def log_in_from_outside(self, name: str, role: Role) -> tuple[Identity, str]:
        """Someone whom a provider has let in as that: a user `oidc:NAME`, whose role is what the provider says each time."""
        self._check_name(name[:60])
        name = f"oidc:{name}"
        if len(name) > 64:
            raise RuyicamError(Exit.USAGE, f"name is '{name}', expected at most 64 characters")
        # A password that nobody knows.
        row = {"name": name, "role": role.value, "password": self._nobody, "created_at": time.time()}
        with self._store.write() as connection:
            if connection.scalar(self._store.insert_new(User).returning(User.name), row) is None:
                connection.execute(update(User).where(User.name == name).values(role=role.value))
            return Identity(name, role), self._new_login(connection, name)

    def log_out(self, secret: str) -> None:
        """That browser is let in no more."""
        with self._store.write() as connection:
            connection.execute(delete(Login).where(Login.hash == _digest(secret)))

    def of_login(self, secret: str) -> Identity | None:
        """Whose browser that is."""
        query = select(User.name, User.role).join(Login, Login.user == User.name)
        with self._store.engine.connect() as connection:
            row = connection.execute(query.where(Login.hash == _digest(secret), Login.expires_at >= time.time())).first()
        return Identity(row.name, Role(row.role)) if row else None

    def tokens(self) -> list[ApiToken]:
        """All of them, by name; what is hashed is not known here."""
        return self._store.rows(select(ApiToken).order_by(ApiToken.name))

    def new_token(self, name: str, role: Role, by: str, days: float | None = None) -> str:
        """A secret with which a program is let in in that role, for so long; shown once."""
        self._check_name(name)
        secret = f"ruyicam_{secrets.token_urlsafe(32)}"
        until = None if days is None else time.time() + days * 86400
        row = {
            "hash": _digest(secret), "name": name, "role": role.value, "created_at": time.time(), "created_by": by,
            "expires_at": until,
        }  # fmt: skip
        with self._store.write() as connection:
            if connection.scalar(self._store.insert_new(ApiToken).returning(ApiToken.name), row) is None:
                raise RuyicamError(Exit.USAGE, f"token '{name}' exists")
        return secret

    def remove_token(self, name: str) -> None:
        """It lets nobody in from now on."""
        with self._store.write() as connection:
            if not connection.execute(delete(ApiToken).where(ApiToken.name == name)).rowcount:
                raise RuyicamError(Exit.USAGE, f"token '{name}' does not exist")

    def of_token(self, secret: str) -> Identity | None:
        """The program that shows it."""
        for token in self._store.rows(select(ApiToken).where(ApiToken.hash == _digest(secret))):
            if token.expires_at is None or token.expires_at >= time.time():
                return Identity(f"token:{token.name}", Role(token.role))
        return None

    def note(self, who: str, action: str, what: str) -> None:
        """Into the audit log."""
        with self._store.write() as connection:
            row = {"at": time.time(), "who": who, "action": action, "object": what[:128]}
            connection.execute(insert(AuditEntry), row)

    def audit(self, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
        """Entries of the audit log, newest first; before: the number of one that is known."""
        query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
        return self._store.rows(query if before is None else query.where(AuditEntry.id < before))
