"""The uplink: checks packets, stores them, acknowledges what is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import grpc

from ruyicam.cloud.bundles import BundleInfo
from ruyicam.cloud.wire import METHOD, SERVICE, Ack, FeaturePacket, Kind, packet_size

from .metrics import PACKETS, REJECTED
from .store import Store

log = logging.getLogger("ruyicam.ingest")

_BATCH = 256
# A packet is a few hundred bytes; nothing that could hold a picture is even read.
MAX_MESSAGE = 16 * 1024


class BadPacketError(Exception):
    """A packet that no device of ours sends."""


class Ingest:
    """The gRPC service `ruyicam.v1.Uplink`."""

    def __init__(self, store: Store, bundles: dict[str, BundleInfo], wake: Callable[[], None]):
        self.store, self.bundles, self.wake = store, bundles, wake

    def handler(self) -> grpc.GenericRpcHandler:
        """To be given to `server.add_generic_rpc_handlers`."""
        method = grpc.stream_stream_rpc_method_handler(
            self.stream, request_deserializer=bytes, response_serializer=Ack.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    def check(self, raw: bytes, camera_id: str) -> FeaturePacket:
        """The packet in `raw`. Raises BadPacketError for any other camera, bundle, size or value."""
        try:
            packet = FeaturePacket.FromString(raw)
        except Exception as error:
            raise BadPacketError("not a packet") from error
        if packet.camera_id != camera_id:
            raise BadPacketError(f"camera_id '{packet.camera_id}' on the certificate of '{camera_id}'")
        bundle = self.bundles.get(packet.bundle_id.hex())
        if bundle is None:
            raise BadPacketError(f"bundle {packet.bundle_id.hex()} is not known here")
        want = packet_size(camera_id, bundle.packed_bytes)
        if len(raw) != want or len(packet.features) != bundle.packed_bytes or len(packet.boot_id) != 16:
            raise BadPacketError(f"packet has {len(raw)} bytes, every packet of this bundle has {want}")
        if packet.kind not in set(Kind) or packet.token >= len(bundle.alphabet) or packet.sequence >= 1 << 62:
            raise BadPacketError("kind, token or sequence is out of range")
        return packet

    async def stream(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator:
        """Batches what has arrived, stores it in one transaction, then acknowledges each boot's newest packet."""
        names = context.auth_context().get("x509_common_name", [b""])
        camera_id = names[0].decode(errors="replace")
        queue: asyncio.Queue = asyncio.Queue(2 * _BATCH)

        async def read() -> None:
            try:
                async for raw in requests:
                    await queue.put(raw)
            finally:
                await queue.put(None)

        reader = asyncio.create_task(read())
        try:
            ended = False
            while not ended:
                batch = [await queue.get()]
                while not queue.empty() and len(batch) < _BATCH:
                    batch.append(queue.get_nowait())
                if batch[-1] is None:
                    ended = True
                    batch.pop()
                if not batch:
                    continue
                try:
                    packets = [self.check(raw, camera_id) for raw in batch]
                except BadPacketError as error:
                    REJECTED.inc()
                    log.warning("camera %s: refused: %s", camera_id, error)
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
                new = await asyncio.to_thread(self.store.add_packets, packets)
                PACKETS.labels(camera_id).inc(new)
                self.wake()
                newest: dict[bytes, int] = {}
                for p in packets:
                    newest[p.boot_id] = max(newest.get(p.boot_id, 0), p.sequence)
                for boot_id, sequence in newest.items():
                    yield Ack(boot_id=boot_id, sequence=sequence)
        finally:
            reader.cancel()
