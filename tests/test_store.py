"""The service's database on its own."""

from __future__ import annotations

import time

from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.wire import FeaturePacket


def packet(sequence: int, last: int = 0) -> FeaturePacket:
    """A tick of one boot."""
    return FeaturePacket(
        camera_id="c",
        boot_id=bytes(16),
        sequence=sequence,
        captured_at_us=sequence,
        bundle_id=b"b" * 16,
        kind=1,
        token=0,
        last=last,
    )


def test_silence_counts_from_when_the_server_listens(tmp_path):
    """A server that was away has not heard a camera; that does not end the camera's boot."""
    url, bundle = f"sqlite:///{tmp_path / 'server.db'}", (b"b" * 16).hex()
    Store(url).add_packets([packet(n) for n in range(41)])
    time.sleep(0.4)
    store = Store(url)
    (full,) = store.pending_windows([bundle], 40, 10, idle_s=0.3)
    assert (full.start, full.end, full.final) == (0, 39, False)
    store.add_verdicts(full, [], "normal", 10)
    assert store.pending_windows([bundle], 40, 10, idle_s=0.3) == []
    time.sleep(0.4)
    (rest,) = store.pending_windows([bundle], 40, 10, idle_s=0.3)
    assert rest.final and rest.end == 40
