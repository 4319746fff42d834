"""The tables of the service."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Float, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All tables of the service."""


class Boot(Base):
    """One run of one camera's device runtime, and how far its windows have been read."""

    __tablename__ = "boots"
    camera_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    boot_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    bundle_id: Mapped[str] = mapped_column(String(32))
    newest: Mapped[int] = mapped_column(BigInteger, default=-1)
    next_start: Mapped[int] = mapped_column(BigInteger, default=0)
    # Newest tick that a window has been read to.
    read_to: Mapped[int] = mapped_column(BigInteger, default=-1)
    ended: Mapped[bool] = mapped_column(Boolean, default=False)
    closed: Mapped[bool] = mapped_column(Boolean, default=False)
    seen_at: Mapped[float] = mapped_column(Float, default=0.0)
    ledger_releases: Mapped[int] = mapped_column(BigInteger, default=0)
    ledger_bits: Mapped[float] = mapped_column(Float, default=0.0)
    # The camera's ledger began below what an earlier boot had reported: an old copy of it, or another device.
    ledger_went_back: Mapped[bool] = mapped_column(Boolean, default=False)
    __table_args__ = (Index("boots_open", "closed"),)


class Packet(Base):
    """One tick as it arrived; stored before it is acknowledged."""

    __tablename__ = "packets"
    camera_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    boot_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    captured_at_us: Mapped[int] = mapped_column(BigInteger)
    # Unix time at which the service got it.
    received_at: Mapped[float] = mapped_column(Float)
    kind: Mapped[int] = mapped_column(Integer)
    token: Mapped[int] = mapped_column(Integer)
    features: Mapped[bytes] = mapped_column(LargeBinary)


class SessionCertificate(Base):
    """What one boot has released, signed by the device; the latest of the boot."""

    __tablename__ = "session_certificates"
    camera_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    boot_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    end_us: Mapped[int] = mapped_column(BigInteger)
    statement: Mapped[str] = mapped_column(Text)
    signature: Mapped[str] = mapped_column(Text)
    certificate: Mapped[str] = mapped_column(Text)


class EnrolmentToken(Base):
    """Lets one new device enrol under one camera id; only its hash is kept."""

    __tablename__ = "enrolment_tokens"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    camera_id: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[float] = mapped_column(Float)
    # SHA-256 of the public key that it was used for: the same device may ask again, should the answer have been lost.
    used_for: Mapped[str | None] = mapped_column(String(64))


class Window(Base):
    """What one tier said of one window of ticks."""

    __tablename__ = "windows"
    camera_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    boot_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    tier: Mapped[str] = mapped_column(String(32), primary_key=True)
    end: Mapped[int] = mapped_column(BigInteger)
    behaviour: Mapped[str] = mapped_column(String(64))
    # Of the behaviour; NULL where the tier gives none (a token) or had nothing to read.
    confidence: Mapped[float | None] = mapped_column(Float)
    probabilities: Mapped[list | None] = mapped_column(JSON)


class Event(Base):
    """A stretch of time with one behaviour, as the deepest tier sees it."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    camera_id: Mapped[str] = mapped_column(String(64))
    boot_id: Mapped[str] = mapped_column(String(32))
    first_tick: Mapped[int] = mapped_column(BigInteger)
    last_tick: Mapped[int] = mapped_column(BigInteger)
    begin_us: Mapped[int] = mapped_column(BigInteger)
    end_us: Mapped[int] = mapped_column(BigInteger)
    behaviour: Mapped[str] = mapped_column(String(64))
    alert: Mapped[bool] = mapped_column(Boolean)
    confidence: Mapped[float | None] = mapped_column(Float)
    tier: Mapped[str] = mapped_column(String(32))
    windows: Mapped[int] = mapped_column(Integer, default=1)
    # Another behaviour has begun, or the boot is over.
    ended: Mapped[bool] = mapped_column(Boolean, default=False)
    # The most at once.
    people: Mapped[int | None] = mapped_column(Integer)
    # What the language head said of it, in order: what, who, why, sure, begin_us, end_us.
    story: Mapped[list | None] = mapped_column(JSON)
    __table_args__ = (
        UniqueConstraint("camera_id", "boot_id", "first_tick"),
        Index("events_time", "begin_us"),
        Index("events_boot", "camera_id", "boot_id", "last_tick"),
    )


class Change(Base):
    """What happened to an event that someone should look at, in order: what subscribers read, each from where it was."""

    __tablename__ = "event_changes"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    event_id: Mapped[int] = mapped_column(Integer)
    # begin, update or end; acknowledge, judge or note
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[float] = mapped_column(Float)
    # The event as it was then.
    event: Mapped[dict] = mapped_column(JSON)
    __table_args__ = ({"sqlite_autoincrement": True},)


class Care(Base):
    """What people did about an event."""

    __tablename__ = "event_care"
    event_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    acknowledged_at: Mapped[float | None] = mapped_column(Float)
    acknowledged_by: Mapped[str | None] = mapped_column(String(80))
    judged_at: Mapped[float | None] = mapped_column(Float)
    judged_by: Mapped[str | None] = mapped_column(String(80))
    # What it really was: one of the model's labels; the quiet one is a false alarm.
    label: Mapped[str | None] = mapped_column(String(64))


class Note(Base):
    """What somebody wrote about an event."""

    __tablename__ = "event_notes"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    event_id: Mapped[int] = mapped_column(Integer, index=True)
    at: Mapped[float] = mapped_column(Float)
    by: Mapped[str] = mapped_column(String(80))
    text: Mapped[str] = mapped_column(Text)


class User(Base):
    """Someone who may log in."""

    __tablename__ = "users"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    # Argon2id, in its own text form.
    password: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Float)


class Login(Base):
    """A browser that is logged in; only the hash of its cookie is kept."""

    __tablename__ = "logins"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user: Mapped[str] = mapped_column(String(64), index=True)
    expires_at: Mapped[float] = mapped_column(Float)


class ApiToken(Base):
    """Lets a program in; only its hash is kept."""

    __tablename__ = "api_tokens"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[float] = mapped_column(Float)
    created_by: Mapped[str] = mapped_column(String(80))
    expires_at: Mapped[float | None] = mapped_column(Float)


class AuditEntry(Base):
    """Who saw or did what, and when."""

    __tablename__ = "audit_log"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(Float)
    who: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(32))
    object: Mapped[str] = mapped_column(String(128))
    __table_args__ = ({"sqlite_autoincrement": True},)


class _Named:
    """Something that an administrator made and may change."""

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    spec: Mapped[dict] = mapped_column(JSON)
    changed_at: Mapped[float] = mapped_column(Float)
    changed_by: Mapped[str] = mapped_column(String(80))


class RuleRow(_Named, Base):
    """An alert rule; spec: `alerting.rules.Rule`."""

    __tablename__ = "rules"


class ChannelRow(_Named, Base):
    """A way to tell somebody; spec: one of `alerting.channels`, with its secrets."""

    __tablename__ = "channels"


class Firing(Base):
    """A rule fired for an event; quiet: it would have, but for its cooldown."""

    __tablename__ = "firings"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    event_id: Mapped[int] = mapped_column(Integer)
    rule: Mapped[str] = mapped_column(String(64))
    camera_id: Mapped[str] = mapped_column(String(64))
    at: Mapped[float] = mapped_column(Float)
    quiet: Mapped[bool] = mapped_column(Boolean)
    # When somebody else is told, unless the event has been acknowledged; NULL: nobody, or it is done.
    escalate_at: Mapped[float | None] = mapped_column(Float)
    __table_args__ = (
        UniqueConstraint("event_id", "rule"),
        Index("firings_camera", "rule", "camera_id", "at"),
        Index("firings_escalate", "escalate_at"),
    )


class Delivery(Base):
    """A message to a channel: waiting, done or dead."""

    __tablename__ = "deliveries"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    channel: Mapped[str] = mapped_column(String(64))
    event_id: Mapped[int] = mapped_column(Integer)
    rule: Mapped[str] = mapped_column(String(64))
    # begin, end or escalation
    kind: Mapped[str] = mapped_column(String(16))
    message: Mapped[dict] = mapped_column(JSON)
    made_at: Mapped[float] = mapped_column(Float)
    due_at: Mapped[float] = mapped_column(Float)
    tries: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(8))
    error: Mapped[str | None] = mapped_column(Text)
    __table_args__ = (
        UniqueConstraint("event_id", "rule", "channel", "kind"),
        Index("deliveries_due", "state", "due_at"),
    )


class Cursor(Base):
    """How far someone has read `event_changes`."""

    __tablename__ = "cursors"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
