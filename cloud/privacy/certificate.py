"""Session certificates: what a device says that it has released, checked without the device."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, ValidationError

from ruyicam.cloud.errors import Exit, RuyicamError, first_line
from ruyicam.kernels import rounded_gaussian_cdf

from .bounds import bits_per_release, mu
from .profiles import CERTIFIED

# Doubles that were added up in another order differ in their last digits.
_CLOSE = 1e-9


class CertificateError(ValueError):
    """One line: what does not hold."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Bundle(_Strict):
    id: str
    name: str
    version: str


class _Visit(_Strict):
    seconds: float
    mu: float
    token_bits: float


class _Budget(_Strict):
    bits_per_second: float | None
    bits_per_day: float | None
    mu_per_day: float | None
    token_bits_per_day: float | None
    visit: _Visit | None


class _Spent(_Strict):
    releases: int
    feature_bits: float
    token_bits: float
    mu: float


class _Total(_Strict):
    releases: int
    bits: float
    mu: float


class Statement(_Strict):
    """What a device signs; times in Unix microseconds, hashes in hex."""

    schema_: int
    camera_id: str
    boot_id: str
    begin_us: int
    end_us: int
    final: bool
    bundle: _Bundle
    noise_sha256: str
    prior_sha256: str
    profile: str
    clip: int
    sigma: float
    features: int
    bits_per_release: float
    budget: _Budget
    spent: _Spent
    camera_total: _Total


@dataclass(frozen=True)
class Certificate:
    """A statement whose signature holds, and the certificate of the key that made it."""

    statement: Statement
    device: x509.Certificate


def read_certificate(statement: bytes, signature: bytes, pem: bytes) -> Certificate:
    """Checks a signature and that the figures fit each other; CertificateError with what does not hold.

    Whether the key is that of a device of ours is `check_authority`'s to say.
    """
    try:
        device = x509.load_pem_x509_certificate(pem)
        key = device.public_key()
        if isinstance(key, EllipticCurvePublicKey):
            key.verify(signature, statement, ECDSA(hashes.SHA256()))
        elif isinstance(key, Ed25519PublicKey):
            key.verify(signature, statement)
        else:
            raise CertificateError("the device's key is neither EC nor Ed25519")
        content = json.loads(statement)
        if not isinstance(content, dict) or content.get("schema") != 1:
            raise CertificateError("statement is not of schema 1")
        said = Statement(schema_=content.pop("schema"), **content)
    except InvalidSignature as error:
        raise CertificateError("the signature does not fit the statement and the device's certificate") from error
    except CertificateError:
        raise
    except (ValidationError, ValueError, TypeError, RecursionError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateError(f"malformed: {first_line(error)}") from error
    name = device.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not name or name[0].value != said.camera_id:
        raise CertificateError(f"camera_id is '{said.camera_id}', the device's certificate is that of another name")
    try:
        _check_figures(said)
    except CertificateError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise CertificateError(f"a figure is out of range: {error}") from error
    return Certificate(said, device)


def _check_figures(s: Statement) -> None:
    def same(name: str, said: float, want: float) -> None:
        if not math.isclose(said, want, rel_tol=1e-6, abs_tol=_CLOSE):
            raise CertificateError(f"{name} is {said:g}, the formula gives {want:g}")

    bits = bits_per_release(s.features, s.clip, s.sigma)
    same("bits_per_release", s.bits_per_release, bits)
    same("spent feature_bits", s.spent.feature_bits, s.spent.releases * bits)
    same("spent mu", s.spent.mu, mu(s.spent.releases, s.clip, s.sigma))
    if s.noise_sha256 != noise_hash(s.sigma):
        raise CertificateError(f"noise_sha256 is not that of the table of sigma {s.sigma:g}")
    if s.profile in CERTIFIED:
        visit = s.budget.visit
        if visit is None or visit.mu > CERTIFIED[s.profile][0] or visit.token_bits > CERTIFIED[s.profile][1]:
            raise CertificateError(f"the budget of a visit is above that of profile {s.profile}")
    if s.camera_total.releases < s.spent.releases:
        raise CertificateError("the camera's total is below what this session has spent")


def check_authority(certificate: Certificate, ca: x509.Certificate) -> None:
    """CertificateError unless the device's certificate was issued by `ca` and was valid when the session began."""
    try:
        certificate.device.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise CertificateError("the device's certificate is not of this authority") from error
    begin = certificate.statement.begin_us / 1e6
    device = certificate.device
    if not device.not_valid_before_utc.timestamp() <= begin <= device.not_valid_after_utc.timestamp():
        raise CertificateError("the device's certificate was not valid when the session began")


def check_bundle(certificate: Certificate, bundle_id: str, manifest: dict) -> None:
    """CertificateError unless the statement is about the bundle of that manifest."""
    s, privacy = certificate.statement, manifest["privacy"]
    if s.bundle.id != bundle_id:
        raise CertificateError(f"the session ran bundle {s.bundle.id}, not {bundle_id}")
    if s.prior_sha256 != prior_hash(manifest["token_prior"]):
        raise CertificateError("prior_sha256 is not that of the bundle's token prior")
    for name in ("profile", "clip", "sigma"):
        if getattr(s, name) != privacy[name]:
            raise CertificateError(f"{name} is {getattr(s, name)}, the bundle says {privacy[name]}")


@lru_cache(64)
def noise_hash(sigma: float) -> str:
    """SHA-256 of the noise table of that sigma: uint64, little-endian, in hex."""
    return hashlib.sha256(rounded_gaussian_cdf(sigma).astype("<u8").tobytes()).hexdigest()


def prior_hash(prior: list[float]) -> str:
    """SHA-256 of a token prior: doubles, little-endian, in hex."""
    return hashlib.sha256(np.array(prior, "<f8").tobytes()).hexdigest()


def load_certificate(path: Path) -> Certificate:
    """A file as the device writes it (`certificates/BOOT.json`) and the server shows it. RuyicamError(CREDENTIALS)."""
    try:
        content = json.loads(path.read_text())
        return read_certificate(
            content["statement"].encode(), bytes.fromhex(content["signature"]), content["certificate"].encode()
        )
    except OSError as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: {error.strerror}") from error
    except CertificateError as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: not a session certificate") from error
