"""What the API takes and gives, as JSON; times are UTC."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ..accounts import Identity, Role
from ..forms import CareOut, EventOut, iso, iso_or_none
from ..tables import ApiToken, AuditEntry, Change, Note, User, Window


class NoteOut(BaseModel):
    """What somebody wrote about an event."""

    at: str
    by: str
    text: str

    @classmethod
    def of(cls, n: Note) -> NoteOut:
        """From the table's row."""
        return cls(at=iso(n.at), by=n.by, text=n.text)


class EventDetail(EventOut):
    """An event, and what is behind it: notes, what the run's ledger had counted, whether there is a session certificate."""

    notes: list[NoteOut]
    ledger_releases: int
    ledger_bits: float
    certificate: bool


class ChangeOut(BaseModel):
    """What happened to an event, and the event as it was then; what people did about it is of now."""

    id: int
    kind: str
    at: str
    event: EventOut

    @classmethod
    def of(cls, c: Change, care: CareOut) -> ChangeOut:
        """From the table's row."""
        return cls(id=c.id, kind=c.kind, at=iso(c.at), event=EventOut.of_values(c.event, care))


class ContourTick(BaseModel):
    """One tick of a contour: of each person 17 joints (COCO's order) as x, y and whether it is seen, each times 255."""

    tick: int
    at: str
    people: list[list[Annotated[int, Field(ge=0, le=255)]]]


class ContourOut(BaseModel):
    """The contour of an event: ticks whose features were released; rate_hz: of ticks."""

    rate_hz: int
    ticks: list[ContourTick]


class LabelOut(BaseModel):
    """A label for training: what a stretch of released features was taken for, and what somebody says that it was."""

    event_id: int
    camera_id: str
    boot_id: str
    first_tick: int
    last_tick: int
    begin: str
    end: str
    predicted: str
    confidence: float | None
    label: str
    judged_by: str
    judged_at: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> LabelOut:
        """From `EventCare.labels_given`."""
        times = {"begin": iso(row["begin_us"] / 1e6), "end": iso(row["end_us"] / 1e6), "judged_at": iso(row["judged_at"])}
        return cls(**times, **{k: row[k] for k in cls.model_fields if k not in times})


class WindowOut(BaseModel):
    """What one tier said of one window."""

    start: int
    end: int
    tier: str
    behaviour: str
    confidence: float | None
    probabilities: list[float] | None

    @classmethod
    def of(cls, w: Window) -> WindowOut:
        """From the table's row."""
        return cls(**{k: getattr(w, k) for k in cls.model_fields})


class BootOut(BaseModel):
    """How far one run of a device has been read."""

    camera_id: str
    boot_id: str
    packets: int
    newest: int
    ended: bool
    closed: bool
    ledger_releases: int
    ledger_bits: float
    ledger_went_back: bool
    windows: list[WindowOut]


class CertificateOut(BaseModel):
    """A session certificate as `ruyicam privacy verify` reads it: signed JSON, signature in hex, the device's PEM."""

    statement: str
    signature: str
    certificate: str


class CameraOut(BaseModel):
    """A camera and its latest run: when it was last heard, whether it is sending, what its ledger has counted."""

    camera_id: str
    boot_id: str
    bundle: str | None
    profile: str | None
    seen_at: str
    sending: bool
    ledger_releases: int
    ledger_bits: float
    ledger_went_back: bool
    certificate: bool


class Request(BaseModel):
    """Nothing but what is named."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """Why a request was refused: a line, or what is wrong where."""

    detail: str | list[dict[str, Any]]


class LoginIn(Request):
    """A user."""

    name: str = Field(max_length=64)
    password: str = Field(max_length=256)


class LoginWays(BaseModel):
    """oidc: what the provider is called at which people may log in (/v1/oidc/login); null: none."""

    oidc: str | None


class MeOut(BaseModel):
    """Who asks; labels: what an event can be, the first is the quiet one."""

    name: str
    role: Role
    labels: list[str]

    @classmethod
    def of(cls, who: Identity, labels: Iterable[str]) -> MeOut:
        """From who was let in."""
        return cls(name=who.name, role=who.role, labels=list(labels))


class JudgementIn(Request):
    """What it really was."""

    label: str = Field(max_length=64)


class NoteIn(Request):
    """What is to be remembered."""

    text: str = Field(min_length=1, max_length=4000)


class UserIn(Request):
    """A new user."""

    name: str = Field(max_length=64)
    role: Role
    password: str = Field(max_length=256)


class UserChange(Request):
    """What is to change; all logins of the user end."""

    role: Role | None = None
    password: str | None = Field(None, max_length=256)


class UserOut(BaseModel):
    """A user."""

    name: str
    role: Role
    created_at: str

    @classmethod
    def of(cls, u: User) -> UserOut:
        """From the table's row."""
        return cls(name=u.name, role=Role(u.role), created_at=iso(u.created_at))


class TokenIn(Request):
    """A new token; days: how long it is good, None: for ever."""

    name: str = Field(max_length=64)
    role: Role
    days: float | None = Field(None, gt=0, le=36500)


class TokenOut(BaseModel):
    """A token; the secret is only in the answer that makes it."""

    name: str
    role: Role
    created_at: str
    created_by: str
    expires_at: str | None

    @classmethod
    def of(cls, t: ApiToken) -> TokenOut:
        """From the table's row."""
        return cls(
            name=t.name,
            role=Role(t.role),
            created_at=iso(t.created_at),
            created_by=t.created_by,
            expires_at=iso_or_none(t.expires_at),
        )


class NewToken(BaseModel):
    """The secret, which is shown once: `Authorization: Bearer SECRET`."""

    name: str
    secret: str


class AuditOut(BaseModel):
    """Who saw or did what."""

    id: int
    at: str
    who: str
    action: str
    object: str

    @classmethod
    def of(cls, a: AuditEntry) -> AuditOut:
        """From the table's row."""
        return cls(id=a.id, at=iso(a.at), who=a.who, action=a.action, object=a.object)
