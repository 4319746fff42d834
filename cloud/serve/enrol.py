"""Enrolment: a new device shows a token that is good once, and gets the certificate of its camera."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from google.protobuf.message import DecodeError

from ruyicam.cloud.errors import Exit, RuyicamError, first_line
from ruyicam.cloud.keys import read_pem
from ruyicam.cloud.wire import ENROL, ENROLMENT, Enrolled, EnrolmentRequest

from .metrics import REJECTED
from .store import Store

log = logging.getLogger("ruyicam.enrol")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def new_token(store: Store, camera_id: str, hours: float) -> str:
    """A token that lets one device enrol as `camera_id` within that time: 160 random bits; only its hash is stored."""
    token = secrets.token_hex(20)
    store.add_token(_digest(token.encode()), camera_id, time.time() + hours * 3600)
    return token


class Issuer:
    """The authority, in the server."""

    def __init__(self, ca: Path, ca_key: Path, days: float):
        """Raises RuyicamError(CREDENTIALS) with one line if the key is not that of the authority."""
        _, self._ca = read_pem(ca, x509.load_pem_x509_certificate, "a certificate")
        _, self._key = read_pem(ca_key, lambda b: serialization.load_pem_private_key(b, None), "an unencrypted private key")
        if self._key.public_key() != self._ca.public_key():
            raise RuyicamError(Exit.CREDENTIALS, f"{ca_key}: is not the key of {ca}")
        self._days = days

    def sign(self, request: x509.CertificateSigningRequest) -> bytes:
        """A client certificate for the request's name and key, in PEM; nothing else of the request is taken over."""
        now = datetime.now(UTC)
        end = min(now + timedelta(days=self._days), self._ca.not_valid_after_utc)
        (name,) = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([name]))
            .issuer_name(self._ca.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            # A new device's clock may be behind.
            .not_valid_before(max(now - timedelta(days=1), self._ca.not_valid_before_utc))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, None if isinstance(self._key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


class Enrolment:
    """The gRPC service `ruyicam.v1.Enrolment`."""

    def __init__(self, store: Store, issuer: Issuer):
        self.store, self.issuer = store, issuer

    def handler(self) -> grpc.GenericRpcHandler:
        """To be given to `server.add_generic_rpc_handlers`, on a port that asks for no client certificate."""
        enrol = grpc.unary_unary_rpc_method_handler(
            self.enrol, request_deserializer=bytes, response_serializer=Enrolled.SerializeToString
        )
        return grpc.method_handlers_generic_handler(ENROLMENT, {ENROL: enrol})

    async def enrol(self, raw: bytes, context: grpc.aio.ServicerContext):
        """A certificate, if the token is good for the camera that the request names."""
        try:
            asked = EnrolmentRequest.FromString(raw)
            request = x509.load_pem_x509_csr(asked.request)
            (name,) = (a.value for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
            key = request.public_key()
            good_key = isinstance(key, ed25519.Ed25519PublicKey) or (
                isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
            )
            if not request.is_signature_valid or not good_key:
                raise ValueError("no signature by a P-256, P-384 or Ed25519 key of its own")
        except (DecodeError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            REJECTED.inc()
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a certificate request: {first_line(error)}")
        encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        if not await asyncio.to_thread(self.store.use_token, _digest(asked.token.encode()), name, _digest(encoded)):
            REJECTED.inc()
            log.warning("enrolment as %r refused", name)
            # Which of these it is, only the operator learns.
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the token is unknown, used, expired or another camera's")
        log.info("camera %s: enrolled", name)
        return Enrolled(certificate=self.issuer.sign(request))
