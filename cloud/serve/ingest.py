"""The uplink: checks packets, stores them, acknowledges what is stored."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Container, Sequence

import grpc
from cryptography import x509
from google.protobuf.message import DecodeError

from ruyicam.cloud.bundles import BundleInfo
from ruyicam.cloud.errors import first_line
from ruyicam.cloud.privacy.certificate import CertificateError, read_certificate
from ruyicam.cloud.wire import (
    CERTIFY,
    FETCH,
    KNOWS,
    METHOD,
    SERVICE,
    Ack,
    BundleKnown,
    BundlePart,
    BundleRequest,
    Certified,
    FeaturePacket,
    Kind,
    SessionCertificate,
    packet_size,
)

from .load import LoadPolicy
from .metrics import REJECTED
from .offers import Offer, offer_for
from .packets import GroupWriter
from .store import Store

log = logging.getLogger("ruyicam.ingest")

_BATCH = 256
# A packet is a few hundred bytes; nothing that could hold a picture is even read.
MAX_MESSAGE = 16 * 1024
# Of what is counted, and of Unix times in microseconds (the year 9999): what lies beyond no device means.
_MOST, _LATEST_US = 1 << 62, 253_402_300_799_000_000


class BadPacketError(Exception):
    """A packet that no device of ours sends."""


def _camera_of(context: grpc.aio.ServicerContext) -> str:
    return context.auth_context().get("x509_common_name", [b""])[0].decode(errors="replace")


def _serial_of(context: grpc.aio.ServicerContext) -> int:
    return x509.load_pem_x509_certificate(context.auth_context()["x509_pem_cert"][0]).serial_number


class Ingest:
    """The gRPC service `ruyicam.v1.Uplink`."""

    def __init__(
        self,
        store: Store,
        writer: GroupWriter,
        bundles: dict[str, BundleInfo],
        load: LoadPolicy,
        wake: Callable[[], None],
        offers: Sequence[Offer] = (),
        revoked: Container[int] = (),
    ):
        """revoked: serial numbers of certificates that are good no more; what is held here may change at any time."""
        self.store, self.writer, self.bundles, self.load, self.wake = store, writer, bundles, load, wake
        self.offers, self.revoked = offers, revoked

    async def _refuse_revoked(self, serial: int, context: grpc.aio.ServicerContext) -> None:
        if serial in self.revoked:
            REJECTED.inc()
            log.warning("camera %s: its certificate has been revoked", _camera_of(context))
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the certificate has been revoked")

    def handler(self) -> grpc.GenericRpcHandler:
        """To be given to `server.add_generic_rpc_handlers`."""
        stream = grpc.stream_stream_rpc_method_handler(
            self.stream, request_deserializer=bytes, response_serializer=Ack.SerializeToString
        )
        certify = grpc.unary_unary_rpc_method_handler(
            self.certify, request_deserializer=bytes, response_serializer=Certified.SerializeToString
        )
        fetch = grpc.unary_stream_rpc_method_handler(
            self.fetch, request_deserializer=bytes, response_serializer=BundlePart.SerializeToString
        )
        knows = grpc.unary_unary_rpc_method_handler(
            self.knows, request_deserializer=bytes, response_serializer=BundleKnown.SerializeToString
        )
        calls = {METHOD: stream, CERTIFY: certify, FETCH: fetch, KNOWS: knows}
        return grpc.method_handlers_generic_handler(SERVICE, calls)

    async def _bundle_asked(self, raw: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            return BundleRequest.FromString(raw).bundle_id
        except DecodeError as error:
            REJECTED.inc()
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def knows(self, raw: bytes, context: grpc.aio.ServicerContext):
        """Whether packets of that bundle are welcome."""
        await self._refuse_revoked(_serial_of(context), context)
        return BundleKnown(known=(await self._bundle_asked(raw, context)).hex() in self.bundles)

    async def fetch(self, raw: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator:
        """The bundle that is offered to this camera, in pieces; nothing if it runs it, or none is."""
        await self._refuse_revoked(_serial_of(context), context)
        camera_id = _camera_of(context)
        offer = offer_for(self.offers, camera_id, await self._bundle_asked(raw, context))
        if offer is None:
            return
        log.info("camera %s: fetches %s", camera_id, offer.path)
        pieces = offer.pieces()
        try:
            while piece := await asyncio.to_thread(next, pieces, None):
                yield BundlePart(file=piece[0], data=piece[1])
        except OSError as error:
            log.error("offer %s: %s", offer.path, error)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the bundle cannot be read on the server")

    async def certify(self, raw: bytes, context: grpc.aio.ServicerContext):
        """Stores a session certificate whose signature and figures hold and whose key is that of the connection."""
        await self._refuse_revoked(_serial_of(context), context)
        camera_id = _camera_of(context)
        try:
            request = SessionCertificate.FromString(raw)
            # gRPC has checked the chain of the connection's own certificate; this must be the same one.
            if request.certificate.strip() != context.auth_context().get("x509_pem_cert", [b""])[0].strip():
                raise CertificateError("it is not signed with the key of this connection")
            # In a thread: the table of the noise takes its time.
            signed = request.statement, request.signature, request.certificate
            said = (await asyncio.to_thread(read_certificate, *signed)).statement
            if not 0 <= said.end_us <= _LATEST_US or len(said.boot_id) != 32:
                raise CertificateError("end_us or boot_id is out of range")
        except (CertificateError, DecodeError) as error:
            REJECTED.inc()
            log.warning("camera %s: certificate refused: %s", camera_id, error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        text = (request.statement.decode(), request.signature.hex(), request.certificate.decode())
        await asyncio.to_thread(self.store.add_certificate, camera_id, said.boot_id, said.end_us, *text)
        return Certified()

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
        if packet.kind not in set(Kind) or packet.token >= len(bundle.alphabet) or packet.sequence >= _MOST:
            raise BadPacketError("kind, token or sequence is out of range")
        if packet.captured_at_us > _LATEST_US:
            raise BadPacketError("captured_at_us is out of range")
        if packet.ledger_releases >= _MOST or not 0 <= packet.ledger_bits < math.inf:
            raise BadPacketError("ledger_releases or ledger_bits is out of range")
        return packet

    async def stream(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator:
        """Stores what has arrived, then acknowledges each boot's newest packet. While the service is behind nothing is read,
        and devices keep what they have."""
        camera_id, serial = _camera_of(context), _serial_of(context)
        await self._refuse_revoked(serial, context)
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
                await self._refuse_revoked(serial, context)
                try:
                    packets = [self.check(raw, camera_id) for raw in batch]
                except BadPacketError as error:
                    REJECTED.inc()
                    log.warning("camera %s: refused: %s", camera_id, error)
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
                await self.load.admit()
                try:
                    await self.writer.add(packets)
                except Exception as error:
                    log.error("camera %s: packets are not stored: %s", camera_id, first_line(error))
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "packets cannot be stored at the moment")
                self.wake()
                newest: dict[bytes, int] = {}
                for p in packets:
                    newest[p.boot_id] = max(newest.get(p.boot_id, 0), p.sequence)
                for boot_id, sequence in newest.items():
                    yield Ack(boot_id=boot_id, sequence=sequence)
        finally:
            reader.cancel()
