"""The server's configuration: one TOML file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .accounts import Role


class Keep(BaseModel):
    """How long things are kept, in days."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    features: float = Field(7.0, gt=0, description="released features, and what tiers said of their windows: replay needs them")
    events: float = Field(90.0, gt=0, description="events, notes, messages and session certificates, since their end")
    changes: float = Field(1.0, gt=0, description="what happened to events, for listeners that come back")
    audit: float = Field(365.0, gt=0, description="who saw and did what")


class Ray(BaseModel):
    """The model's replicas on a Ray cluster."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    address: str | None = Field(None, description="of the cluster; none: RAY_ADDRESS, this machine's, or one that is started")
    replicas_min: int = Field(1, ge=1, description="of the model, when there is little to read")
    replicas_max: int = Field(4, ge=1, description="of the model, when there is much")
    cpus: float = Field(1.0, ge=0, description="what one replica takes of a machine")
    gpus: float = Field(0.0, ge=0, description="the same; more than 0 needs device = 'cuda'")

    @model_validator(mode="after")
    def _least_and_most(self) -> Ray:
        if self.replicas_max < self.replicas_min:
            raise ValueError(f"replicas_max is {self.replicas_max}, expected at least replicas_min, {self.replicas_min}")
        return self


class Oidc(BaseModel):
    """People log in at an OpenID Connect provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    issuer: str = Field(pattern=r"^https?://\S+$", description="of the provider; its .well-known/openid-configuration is read")
    client_id: str = Field(min_length=1, description="as which this service is known there")
    client_secret: Path = Field(description="file with the secret of that client")
    url: str = Field(pattern=r"^https?://[^\s/]+$", description="where browsers find this service: it is sent there afterwards")
    name: str = Field("your organisation", max_length=64, description="what the page calls the provider")
    name_claim: str = Field("preferred_username", description="what someone is called in the log")
    role_claim: str = Field("groups", description="where the provider says what someone is")
    roles: dict[str, Role] = Field(min_length=1, description="value of that claim to role; the highest counts, none: refused")


class ServerConfig(BaseModel):
    """Every key of server.toml. Addresses are HOST:PORT; port 0 takes a free one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    grpc: str = Field("0.0.0.0:7443", pattern=r"^.+:\d{1,5}$", description="address of the uplink (mutual TLS)")
    enrol: str | None = Field(None, pattern=r"^.+:\d{1,5}$", description="address where new devices enrol (TLS); none: nowhere")
    ca_key: Path | None = Field(None, description="PEM: the authority's private key, with which new devices' are signed")
    enrol_days: float = Field(365.0, gt=0, description="validity of certificates of new devices")
    http: str = Field("127.0.0.1:8080", pattern=r"^.+:\d{1,5}$", description="address of API, health and metrics")
    open: bool = Field(False, description="API and page without log-in, all as administrators; only where http is loopback")
    ca: Path = Field(description="PEM: authority of the devices' certificates")
    crl: Path | None = Field(None, description="PEM: the authority's list of certificates that are good no more")
    cert: Path = Field(description="PEM: the server's certificate")
    key: Path = Field(description="PEM: its private key")
    model: Path = Field(description="checkpoint folder with config.json and model.safetensors")
    device: str = Field("cpu", description="where the model computes: cpu, cuda, cuda:1")
    ray: Ray | None = Field(None, description="replicas of the model on a Ray cluster; none: one, on this machine")
    oidc: Oidc | None = Field(None, description="log-in at an OpenID Connect provider; none: with passwords only")
    bundles: list[Path] = Field(min_length=1, description="bundles whose packets are welcome")
    public_key: Path = Field(description="PEM: Ed25519 key that they are signed with")
    offers: dict[str, Path] = Field(
        {}, description="what cameras are to run: pattern of camera ids to bundle; of patterns that fit the first counts"
    )
    database: str = Field("sqlite:///ruyicam.db", description="SQLAlchemy URL")
    stride_ticks: int = Field(10, ge=1, description="ticks from one window to the next")
    latency_s: float = Field(1.0, gt=0, description="from packet to event; as it nears, windows are read less thoroughly")
    hold_s: float = Field(10.0, gt=0, description="lag beyond which packets are left with the devices until it has halved")
    retry_s: float = Field(1.0, gt=0, description="after which a message to a channel is tried again; doubles with each try")
    retry_longest_s: float = Field(300.0, gt=0, description="most that it doubles to")
    give_up_s: float = Field(86400.0, gt=0, description="after which a message is dead; someone may have it tried again")
    keep: Keep = Field(Keep(), description="how long things are kept, in days: features, events, changes, audit")
    idle_s: float = Field(10.0, gt=0, description="silence after which a boot's last window is closed")

    @model_validator(mode="after")
    def _open_only_here(self) -> ServerConfig:
        if self.open and self.http.rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]"):
            raise ValueError(f"open is true, but http is {self.http}, expected 127.0.0.1, localhost or [::1]")
        return self

    @model_validator(mode="after")
    def _enrolment_needs_a_key(self) -> ServerConfig:
        if self.enrol is not None and self.ca_key is None:
            raise ValueError("enrol needs ca_key")
        return self
