"""The server's certificates, checked before they are used."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.keys import read_pem


def _certificate(path: Path) -> tuple[bytes, x509.Certificate]:
    pem, cert = read_pem(path, x509.load_pem_x509_certificate, "a certificate")
    now = datetime.now(UTC)
    if now > cert.not_valid_after_utc:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: certificate expired on {cert.not_valid_after_utc}")
    if now < cert.not_valid_before_utc:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: certificate is not valid before {cert.not_valid_before_utc}")
    return pem, cert


def revoked_serials(crl: Path | None, ca: Path) -> frozenset[int]:
    """Serial numbers of certificates that are good no more, by the authority's list. Raises RuyicamError(CREDENTIALS) for one
    that is not the authority's, or out of date."""
    if crl is None:
        return frozenset()
    _, found = read_pem(crl, x509.load_pem_x509_crl, "a certificate revocation list")
    _, authority = read_pem(ca, x509.load_pem_x509_certificate, "a certificate")
    if not found.is_signature_valid(authority.public_key()):
        raise RuyicamError(Exit.CREDENTIALS, f"{crl}: is not signed by {ca}")
    end = found.next_update_utc
    if end is not None and datetime.now(UTC) > end:
        raise RuyicamError(Exit.CREDENTIALS, f"{crl}: was good until {end}; make a newer one")
    return frozenset(r.serial_number for r in found)


def server_credentials(ca: Path, cert: Path, key: Path, mutual: bool = True) -> grpc.ServerCredentials:
    """TLS; mutual: clients must show a certificate of `ca`. Raises RuyicamError(CREDENTIALS) with one line."""
    ca_pem, _ = _certificate(ca)
    cert_pem, own = _certificate(cert)
    key_pem, secret = read_pem(key, lambda b: serialization.load_pem_private_key(b, None), "an unencrypted private key")
    if secret.public_key() != own.public_key():
        raise RuyicamError(Exit.CREDENTIALS, f"{key}: is not the key of {cert}")
    return grpc.ssl_server_credentials([(key_pem, cert_pem)], ca_pem if mutual else None, mutual)
