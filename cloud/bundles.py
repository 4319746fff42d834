"""Bundles as their readers see them: a signed manifest, and the figures that the server needs of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .errors import Exit, RuyicamError
from .keys import load_public_key

SCHEMA = 2


def refuse(path: Path, why: str) -> RuyicamError:
    """The error for a bundle that is not to be used."""
    return RuyicamError(Exit.BUNDLE, f"bundle {path}: {why}")


def bundle_id(manifest: bytes) -> bytes:
    """First 16 bytes of the SHA-256 of the manifest's bytes: what packets carry."""
    return hashlib.sha256(manifest).digest()[:16]


def read_manifest(path: Path, key: Ed25519PublicKey) -> tuple[bytes, dict]:
    """(bytes, content) of a manifest whose signature holds; RuyicamError(BUNDLE) with one line otherwise."""
    try:
        raw = (path / "manifest.json").read_bytes()
        if not (path / "manifest.sig").exists():
            raise refuse(path, "unsigned: there is no manifest.sig")
        key.verify((path / "manifest.sig").read_bytes(), raw)
        content = json.loads(raw)
    except OSError as error:
        raise refuse(path, f"{Path(error.filename).name}: {error.strerror}") from error
    except InvalidSignature as error:
        raise refuse(path, "the signature does not fit the manifest and the key") from error
    except ValueError as error:
        raise refuse(path, f"manifest is malformed: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise refuse(path, f"manifest is not of schema {SCHEMA}")
    return raw, content


@dataclass(frozen=True)
class BundleInfo:
    """A bundle's public figures; `id` is what packets carry."""

    id: bytes
    name: str
    features: int
    bits: int
    labels: tuple[str, ...]
    alphabet: tuple[str, ...]
    profile: str
    block_ticks: int

    @property
    def readable(self) -> bool:
        """Whether the features are those that the family was trained on; else only tokens are read."""
        return self.profile == "reasoning"

    @property
    def packed_bytes(self) -> int:
        """Bytes of the features field of every packet."""
        return (self.features * self.bits + 7) // 8


def read_bundle_info(path: Path, public_key: Path) -> BundleInfo:
    """Reads a bundle's manifest. Raises RuyicamError(BUNDLE or CREDENTIALS)."""
    raw, m = read_manifest(path, load_public_key(public_key))
    try:
        return BundleInfo(
            id=bundle_id(raw),
            name=m["name"],
            features=m["features"]["tokens"] * m["features"]["out_dim"],
            bits=m["mapping"]["bits"],
            labels=tuple(m["labels"]),
            alphabet=tuple(m["alphabet"]),
            profile=m["privacy"]["profile"],
            block_ticks=m["privacy"]["block_ticks"],
        )
    except (KeyError, TypeError) as error:
        raise refuse(path, f"manifest is malformed: {error!r}") from error
