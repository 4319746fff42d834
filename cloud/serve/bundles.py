"""What the server must know of a bundle: enough to check and unpack its packets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.keys import load_public_key


@dataclass(frozen=True)
class BundleInfo:
    """A bundle's public figures; `id` is what packets carry."""

    id: bytes
    name: str
    features: int
    bits: int
    packed_bytes: int
    labels: tuple[str, ...]
    alphabet: tuple[str, ...]
    rate_hz: int
    profile: str


def read_bundle_info(path: Path, public_key: Path) -> BundleInfo:
    """Reads a manifest whose signature holds. Raises RuyicamError(BUNDLE or CREDENTIALS) otherwise."""
    key = load_public_key(public_key)
    try:
        manifest = (path / "manifest.json").read_bytes()
        key.verify((path / "manifest.sig").read_bytes(), manifest)
        m = json.loads(manifest)
        features = m["features"]["tokens"] * m["features"]["out_dim"]
        return BundleInfo(
            id=hashlib.sha256(manifest).digest()[:16],
            name=m["name"],
            features=features,
            bits=m["mapping"]["bits"],
            packed_bytes=(features * m["mapping"]["bits"] + 7) // 8,
            labels=tuple(m["labels"]),
            alphabet=tuple(m["alphabet"]),
            rate_hz=m["input"]["rate_hz"],
            profile=m["privacy"]["profile"],
        )
    except OSError as error:
        raise RuyicamError(Exit.BUNDLE, f"bundle {path}: {error.strerror}") from error
    except InvalidSignature as error:
        raise RuyicamError(Exit.BUNDLE, f"bundle {path}: the signature does not fit {public_key}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise RuyicamError(Exit.BUNDLE, f"bundle {path}: manifest is malformed: {error!r}") from error
