"""Keys and certificates as PEM files, and the Ed25519 pair NAME.key, NAME.pub that bundles are signed with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .errors import Exit, RuyicamError

Parsed = TypeVar("Parsed")


def read_pem(path: Path, parse: Callable[[bytes], Parsed], what: str) -> tuple[bytes, Parsed]:
    """(file's bytes, what `parse` makes of them). RuyicamError(CREDENTIALS) if it is unreadable or not `what`."""
    try:
        data = path.read_bytes()
        return data, parse(data)
    except OSError as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: not {what} in PEM form") from error


def new_keys(stem: Path) -> tuple[Path, Path]:
    """Writes STEM.key (mode 0600) and STEM.pub. Never overwrites: RuyicamError(USAGE) if either is there."""
    private, public = stem.with_name(stem.name + ".key"), stem.with_name(stem.name + ".pub")
    for path in (private, public):
        if path.exists():
            raise RuyicamError(Exit.USAGE, f"{path} exists already; keys are never overwritten")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public_pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        private.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        public.write_bytes(public_pem)
    except OSError as error:
        private.unlink(missing_ok=True)
        public.unlink(missing_ok=True)
        raise RuyicamError(Exit.STORAGE, f"cannot write {private}: {error.strerror}") from error
    return private, public


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Raises RuyicamError(CREDENTIALS) for anything but an unencrypted Ed25519 private key in PEM form."""
    key = read_pem(path, lambda b: serialization.load_pem_private_key(b, None), "an unencrypted private key")[1]
    if not isinstance(key, Ed25519PrivateKey):
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: not an Ed25519 key; make one with 'ruyicam keys new'")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Raises RuyicamError(CREDENTIALS) for anything but an Ed25519 public key in PEM form."""
    key = read_pem(path, serialization.load_pem_public_key, "a public key")[1]
    if not isinstance(key, Ed25519PublicKey):
        raise RuyicamError(Exit.CREDENTIALS, f"{path}: not an Ed25519 key")
    return key
