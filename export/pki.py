"""A small certificate authority for benches: EC P-256 certificates for one server and its cameras."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.files import whole
from ruyicam.cloud.keys import read_pem


@dataclass(frozen=True)
class Certificate:
    """Paths of a certificate and its private key."""

    cert: Path
    key: Path


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Authority:
    """Issues certificates into one folder: ca.pem, NAME.pem and NAME.key. Its own key is kept in memory unless asked for."""

    def __init__(self, folder: Path, days: float = 30):
        """Raises RuyicamError(STORAGE) if the folder cannot be written, USAGE if it holds an authority already."""
        self.folder, self.days = folder, days
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ruyicam authority")])
        builder = self._builder(self._name, self._key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.ca = folder / "ca.pem"
        if self.ca.exists():
            raise RuyicamError(Exit.USAGE, f"{self.ca} exists already; choose another folder")
        self._write(self.ca, builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def keep_key(self) -> Path:
        """Writes ca.key, for a server that enrols devices."""
        self._write(self.folder / "ca.key", _private(self._key), 0o600)
        return self.folder / "ca.key"

    @staticmethod
    def revoke(ca: Path, ca_key: Path, crl: Path, certificates: list[Path], days: float) -> int:
        """Adds certificates to the list `crl`, or begins one, good for so long; how many are on it. Raises
        RuyicamError(CREDENTIALS) for what cannot be read, or is not the authority's."""
        _, authority = read_pem(ca, x509.load_pem_x509_certificate, "a certificate")
        _, key = read_pem(ca_key, lambda b: serialization.load_pem_private_key(b, None), "an unencrypted private key")
        now, gone = datetime.now(UTC), {}
        if crl.exists():
            _, old = read_pem(crl, x509.load_pem_x509_crl, "a certificate revocation list")
            gone = {r.serial_number: r.revocation_date_utc for r in old}
        for path in certificates:
            _, certificate = read_pem(path, x509.load_pem_x509_certificate, "a certificate")
            try:
                certificate.verify_directly_issued_by(authority)
            except (InvalidSignature, ValueError, TypeError) as error:
                raise RuyicamError(Exit.CREDENTIALS, f"{path}: is not of the authority {ca}") from error
            gone.setdefault(certificate.serial_number, now)
        builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
        builder = builder.last_update(now).next_update(now + timedelta(days=days))
        for serial, when in gone.items():
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
            builder = builder.add_revoked_certificate(entry.build())
        signed = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        Authority._write(crl, signed.public_bytes(serialization.Encoding.PEM))
        return len(gone)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: float) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        end = now + timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - timedelta(days=1))
            .not_valid_after(end)
        )

    @staticmethod
    def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
        try:
            with whole(path) as partial, open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
                file.write(data)
        except OSError as error:
            raise RuyicamError(Exit.STORAGE, f"cannot write {path}: {error.strerror}") from error

    def _issue(self, name: str, usage: x509.ObjectIdentifier, hosts: list[str], days: float | None) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), self.days if days is None else days)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if hosts:
            names: list[x509.GeneralName] = []
            for host in hosts:
                try:
                    names.append(x509.IPAddress(ipaddress.ip_address(host)))
                except ValueError:
                    names.append(x509.DNSName(host))
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        out = Certificate(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        self._write(out.key, _private(key), 0o600)
        self._write(out.cert, builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return out

    def server(self, hosts: list[str], days: float | None = None) -> Certificate:
        """server.pem and server.key for those names and addresses."""
        return self._issue("server", ExtendedKeyUsageOID.SERVER_AUTH, hosts, days)

    def camera(self, camera_id: str, days: float | None = None) -> Certificate:
        """CAMERA.pem and CAMERA.key; the common name is the camera id. Negative days: expired already."""
        return self._issue(camera_id, ExtendedKeyUsageOID.CLIENT_AUTH, [], days)
