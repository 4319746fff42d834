"""The server's certificates, checked before they are used."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ruyicam.cloud.errors import Exit, RuyicamError


def _certificate(path: Path) -> tuple[bytes, x509.Certificate]:
    try:
        pem = path.read_bytes()
        cert = x509.load_pem_x509_certificate(pem)
    except OSError as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: not a certificate in PEM form") from error
    now = datetime.now(UTC)
    if now > cert.not_valid_after_utc:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: certificate expired on {cert.not_valid_after_utc}")
    if now < cert.not_valid_before_utc:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: certificate is not valid before {cert.not_valid_before_utc}")
    return pem, cert


def server_credentials(ca: Path, cert: Path, key: Path) -> grpc.ServerCredentials:
    """Mutual TLS: clients must show a certificate of `ca`. Raises RuyicamError(CREDENTIALS) with one line."""
    ca_pem, _ = _certificate(ca)
    cert_pem, own = _certificate(cert)
    try:
        key_pem = key.read_bytes()
        secret = serialization.load_pem_private_key(key_pem, None)
    except OSError as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{key}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{key}: not an unencrypted private key in PEM form") from error
    if secret.public_key() != own.public_key():
        raise RuyicamError(Exit.CREDENTIALS, f"{key}: is not the key of {cert}")
    return grpc.ssl_server_credentials([(key_pem, cert_pem)], root_certificates=ca_pem, require_client_auth=True)
