"""What a server reads from devices, under a fuzzer that watches which lines it reaches: `make fuzz-service`.

`Server.one(data)` is one input: its first byte says what the rest is. It fails if anything but a refusal comes of it, or if
something gets past the checks that database, reader or API cannot take.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from made import statement

from ruyicam.cloud import bundles, wire
from ruyicam.cloud.bundles import BundleInfo
from ruyicam.cloud.privacy import bounds, certificate
from ruyicam.cloud.serve import enrol, ingest, packets, store, windows
from ruyicam.cloud.serve.enrol import Enrolment
from ruyicam.cloud.serve.forms import iso
from ruyicam.cloud.serve.ingest import BadPacketError, Ingest
from ruyicam.cloud.serve.packets import PacketLog
from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.serve.windows import Seen, Verdict, WindowQueue
from ruyicam.cloud.wire import BundleRequest, EnrolmentRequest, FeaturePacket, SessionCertificate

CAMERA = "ward-3"
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}


class Refused(Exception):
    """The call was refused, as gRPC's abort() does it."""


class Context:
    """Of a call by a device with that certificate."""

    def __init__(self, pem: bytes):
        self._pem = pem

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_common_name": [CAMERA.encode()], "x509_pem_cert": [self._pem]}

    async def abort(self, code: grpc.StatusCode, why: str) -> None:
        assert code in REFUSALS, f"{code}: {why}"
        assert why and "\n" not in why
        raise Refused


class Server:
    """The parts of the service that take in what devices say."""

    def __init__(self, folder: Path, bundle: BundleInfo, pem: bytes, key: Ed25519PrivateKey):
        self.store = Store(f"sqlite:///{folder / 'server.db'}")
        self.log, self.queue = PacketLog(self.store), WindowQueue(self.store, 40, 10, 1e9, "quiet")
        self.bundle, self.pem, self.key = bundle, pem, key
        self.ingest = Ingest(self.store, None, {bundle.id.hex(): bundle}, None, lambda: None)
        self.enrolment = Enrolment(self.store, None)
        self._loop = asyncio.new_event_loop()

    def _call(self, method, raw: bytes) -> None:
        try:
            self._loop.run_until_complete(method(raw, Context(self.pem)))
        except Refused:
            return

    def packet(self, raw: bytes) -> None:
        """Bytes on the stream."""
        try:
            packet = self.ingest.check(raw, CAMERA)
        except BadPacketError:
            return
        self.log.add([packet])
        iso(packet.captured_at_us / 1e6)
        for _ in range(8):
            windows = self.queue.pending([self.bundle.id.hex()])
            seen = [Seen([Verdict("cloud-l", "fall", 0.5, None)]) if w.packets else Seen() for w in windows]
            self.queue.conclude(windows, seen)
        json.dumps([b.ledger_bits for b in self.store.boots()], allow_nan=False)

    def certificate(self, raw: bytes) -> None:
        """A session certificate as it comes."""
        self._call(self.ingest.certify, raw)

    def statement(self, raw: bytes) -> None:
        """A statement that a device of ours has signed, whatever it says."""
        signed = SessionCertificate(statement=raw, signature=self.key.sign(raw), certificate=self.pem)
        self._call(self.ingest.certify, signed.SerializeToString())

    def knows(self, raw: bytes) -> None:
        """A question about a bundle."""
        self._call(self.ingest.knows, raw)

    def enrol(self, raw: bytes) -> None:
        """A new device."""
        self._call(self.enrolment.enrol, raw)

    def one(self, data: bytes) -> None:
        """One input."""
        ways = (self.packet, self.certificate, self.statement, self.knows, self.enrol)
        if data:
            ways[data[0] % len(ways)](data[1:])


def made_server(folder: Path) -> Server:
    """With a bundle and a device of its own, and its database in the folder."""
    key, now = Ed25519PrivateKey.generate(), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CAMERA)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    certificate = builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1)).sign(key, None)
    bundle = BundleInfo(b"b" * 16, "camera", 96, 6, ("quiet", "fall"), ("quiet", "look"), "reasoning", 1)
    return Server(folder, bundle, certificate.public_bytes(serialization.Encoding.PEM), key)


def seeds(server: Server) -> list[bytes]:
    """What devices of ours say."""
    b = server.bundle
    packet = FeaturePacket(
        camera_id=CAMERA, boot_id=bytes(16), sequence=3, captured_at_us=1_700_000_000_000_000, bundle_id=b.id,
        features=bytes(b.packed_bytes), kind=1, token=0, last=0, ledger_releases=1, ledger_bits=1.0,
    )  # fmt: skip
    said = json.dumps(statement(camera_id=CAMERA)).encode()
    signed = SessionCertificate(statement=said, signature=server.key.sign(said), certificate=server.pem)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CAMERA)]))
    asked = request.sign(server.key, None).public_bytes(serialization.Encoding.PEM)
    question, enrolment = BundleRequest(bundle_id=b.id), EnrolmentRequest(token="0" * 40, request=asked)
    messages = [packet.SerializeToString(), signed.SerializeToString(), said, question.SerializeToString()]
    return [bytes([i]) + raw for i, raw in enumerate([*messages, enrolment.SerializeToString()])]


def watch(modules: list[ModuleType]) -> None:
    """Has the fuzzer see which lines of these modules it reaches."""
    import atheris

    for module in modules:
        for scope in (module, *(c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__)):
            for what in vars(scope).values():
                function = getattr(what, "__func__", what)
                if inspect.isfunction(function) and function.__module__ == module.__name__:
                    atheris.instrument_func(function)


def main() -> None:
    """Flags are libFuzzer's; the seeds go into the first folder that is named."""
    import atheris

    logging.disable()
    watch([bundles, certificate, bounds, enrol, ingest, packets, store, windows, wire])
    server = made_server(Path(tempfile.mkdtemp(prefix="ruyicam-fuzz-")))
    folders = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    for folder in folders[:1]:
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds(server)):
            (folder / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, server.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
