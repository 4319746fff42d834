"""Cameras, and the runs of their devices."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query

from ..erasure import Erasure, StillReadError
from ..forms import iso
from .access import Admin, BackendDep, Viewer
from .models import BootOut, CameraOut, CertificateOut, Problem, WindowOut

router = APIRouter(prefix="/v1", tags=["cameras"])
_BOOT = ("camera_id", "boot_id", "newest", "ended", "closed", "ledger_releases", "ledger_bits", "ledger_went_back")


@router.get("/cameras")
def cameras(backend: BackendDep, who: Viewer) -> list[CameraOut]:
    """Every camera that was ever heard, with its latest run, by name."""
    boots, now = backend.store.boots(), time.time()
    certified = backend.store.certified(b.boot_id for b in boots)
    return [
        CameraOut(
            bundle=info.name if info else None,
            profile=info.profile if info else None,
            seen_at=iso(b.seen_at),
            sending=not b.ended and now - b.seen_at < backend.idle_s,
            certificate=b.boot_id in certified,
            **{k: getattr(b, k) for k in ("camera_id", "boot_id", "ledger_releases", "ledger_bits", "ledger_went_back")},
        )
        for b in boots
        for info in [backend.bundles.get(b.bundle_id)]
    ]


@router.delete("/cameras/{camera_id}", responses={409: {"model": Problem}})
def erase(backend: BackendDep, who: Admin, camera_id: str) -> dict[str, int]:
    """Deletes all that is kept of a camera that sends no more: features, windows, events and what was done about them, its
    runs, certificates and tokens. The rows of each table that are gone."""
    try:
        gone = Erasure(backend.store).erase(camera_id)
    except StillReadError as error:
        raise HTTPException(409, str(error)) from error
    backend.accounts.note(who.name, "erase", camera_id)
    return gone


@router.get("/boots/{boot_id}")
def boot(
    backend: BackendDep,
    who: Viewer,
    boot_id: str,
    limit: Annotated[int, Query(ge=1, le=10_000, description="windows, at most")] = 1000,
    before: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="only windows that start before this tick")] = None,
) -> BootOut:
    """One run of a device, with every tier's view of its newest windows; `before` gets those before them."""
    found = backend.store.boot(boot_id)
    if found is None:
        raise HTTPException(404, f"boot {boot_id} is not known here")
    return BootOut(
        packets=backend.store.packet_count(found),
        windows=[WindowOut.of(w) for w in backend.store.windows(found, limit, before)],
        **{k: getattr(found, k) for k in _BOOT},
    )


@router.get("/boots/{boot_id}/certificate")
def certificate(backend: BackendDep, who: Viewer, boot_id: str) -> CertificateOut:
    """What that run has released, signed by the device."""
    found = backend.store.certificate(boot_id)
    if found is None:
        raise HTTPException(404, f"boot {boot_id} has no certificate here yet")
    return CertificateOut(statement=found.statement, signature=found.signature, certificate=found.certificate)
