"""The uplink against those who should not be let in, and against what no device of ours sends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from uplink_fuzz import CAMERA, Server, made_server, seeds

from ruyicam.cloud.bundles import BundleInfo, read_bundle_info
from ruyicam.cloud.errors import RuyicamError
from ruyicam.cloud.serve.ingest import BadPacketError, Ingest
from ruyicam.cloud.serve.tls import revoked_serials
from ruyicam.cloud.wire import METHOD, SERVICE, Ack, EnrolmentRequest, FeaturePacket, Kind
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.pki import Authority, Certificate

BOOT = b"u" * 16


@pytest.fixture(scope="session")
def info(signed) -> BundleInfo:
    """The figures of the tests' bundle."""
    return read_bundle_info(signed[0], signed[1])


def packet(info: BundleInfo, camera: str, sequence: int = 0, **fields) -> FeaturePacket:
    """One that is good."""
    made = FeaturePacket(
        camera_id=camera,
        boot_id=BOOT,
        sequence=sequence,
        captured_at_us=1 + sequence,
        bundle_id=info.id,
        features=bytes(info.packed_bytes),
        kind=Kind.FEATURES,
        token=0,
        last=0,
        ledger_releases=1,
        ledger_bits=1.0,
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class Client:
    """A device that says what it likes; async context manager."""

    def __init__(self, session: BenchSession, own: Certificate | None):
        files = {} if own is None else {"private_key": own.key.read_bytes(), "certificate_chain": own.cert.read_bytes()}
        credentials = grpc.ssl_channel_credentials(session.authority.ca.read_bytes(), **files)
        self._channel = grpc.aio.secure_channel(session.grpc, credentials)
        self._plain = grpc.secure_channel(session.grpc, credentials)
        self.stream = self._channel.stream_stream(f"/{SERVICE}/{METHOD}", response_deserializer=Ack.FromString)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        self._plain.close()

    async def say(self, raw: bytes) -> grpc.StatusCode:
        """What becomes of a stream of this one packet."""
        return await asyncio.to_thread(self._say, raw)

    def _say(self, raw: bytes) -> grpc.StatusCode:
        # grpc.aio calls it "internal" where a stream is refused while it writes; this client waits for what the server says.
        call = self._plain.stream_stream(f"/{SERVICE}/{METHOD}", response_deserializer=Ack.FromString)(iter([raw]))
        with contextlib.suppress(grpc.RpcError):
            for _ in call:
                pass
        return call.code()


def test_who_has_no_good_certificate_is_not_let_in(module_session, info, tmp_path):
    authority, before = module_session.authority, module_session.get("/v1/cameras")
    strangers = [None, authority.camera("late", days=-0.01), Authority(tmp_path / "other").camera("camera-1")]

    async def say(own: Certificate | None) -> grpc.StatusCode:
        async with Client(module_session, own) as client:
            return await asyncio.wait_for(client.say(packet(info, "camera-1").SerializeToString()), 20)

    for own in strangers:
        assert asyncio.run(say(own)) == grpc.StatusCode.UNAVAILABLE
    assert module_session.get("/v1/cameras") == before


def test_a_certificate_that_is_revoked_is_good_no_more_even_on_an_open_stream(module_session, info):
    authority = module_session.authority
    stolen, mine = authority.camera("stolen"), authority.camera("mine")
    key, crl = authority.keep_key(), authority.folder / "crl.pem"

    def revoke(certificate: Certificate) -> None:
        Authority.revoke(authority.ca, key, crl, [certificate.cert], 1)
        module_session.server_keys["crl"] = str(crl)
        module_session.reload_server()

    async def main() -> tuple:
        async with Client(module_session, stolen) as thief, Client(module_session, mine) as own:
            call = thief.stream()
            await call.write(packet(info, "stolen").SerializeToString())
            assert (await call.read()).sequence == 0
            await asyncio.to_thread(revoke, stolen)
            await call.write(packet(info, "stolen", 1).SerializeToString())
            with pytest.raises(grpc.aio.AioRpcError, match="the certificate has been revoked"):
                await call.read()
            again = await thief.say(packet(info, "stolen", 2).SerializeToString())
            return await call.code(), again, await own.say(packet(info, "mine").SerializeToString())

    refused = grpc.StatusCode.UNAUTHENTICATED
    assert asyncio.run(main()) == (refused, refused, grpc.StatusCode.OK)
    cameras = {c["camera_id"]: c["boot_id"] for c in module_session.get("/v1/cameras")}
    assert {"stolen", "mine"} <= cameras.keys()
    # A second one goes onto the same list.
    revoke(mine)
    assert len(revoked_serials(crl, authority.ca)) == 2


def test_lists_that_do_not_hold_are_refused(tmp_path):
    mine, other = Authority(tmp_path / "mine"), Authority(tmp_path / "other")
    crl, cert = tmp_path / "crl.pem", mine.camera("a").cert
    Authority.revoke(mine.ca, mine.keep_key(), crl, [cert], 1)
    assert len(revoked_serials(crl, mine.ca)) == 1 and revoked_serials(None, mine.ca) == frozenset()
    with pytest.raises(RuyicamError, match="is not signed by"):
        revoked_serials(crl, other.ca)
    with pytest.raises(RuyicamError, match="is not of the authority"):
        Authority.revoke(other.ca, other.keep_key(), tmp_path / "new.pem", [cert], 1)
    Authority.revoke(mine.ca, mine.folder / "ca.key", tmp_path / "old.pem", [cert], 1e-9)
    with pytest.raises(RuyicamError, match="was good until"):
        revoked_serials(tmp_path / "old.pem", mine.ca)


def broken(info: BundleInfo, rng: random.Random) -> bytes:
    """A packet that is wrong somehow."""
    good = packet(info, "camera-1", rng.randrange(1 << 40))
    raw = good.SerializeToString()
    ways = [
        lambda: raw[: rng.randrange(len(raw))],
        lambda: raw + rng.randbytes(rng.randrange(1, 64)),
        lambda: rng.randbytes(rng.randrange(0, 2 * len(raw))),
        lambda: packet(info, f"camera-{rng.randrange(2, 99)}").SerializeToString(),
        lambda: packet(info, "camera-1", bundle_id=rng.randbytes(16)).SerializeToString(),
        lambda: packet(info, "camera-1", features=bytes(info.packed_bytes + rng.choice([-1, 1, 999]))).SerializeToString(),
        lambda: packet(info, "camera-1", boot_id=rng.randbytes(rng.choice([0, 15, 17]))).SerializeToString(),
        lambda: packet(info, "camera-1", kind=rng.randrange(99, 200)).SerializeToString(),
        lambda: packet(info, "camera-1", token=rng.randrange(len(info.alphabet), 255)).SerializeToString(),
        lambda: packet(info, "camera-1", sequence=rng.randrange(1 << 62, 1 << 64)).SerializeToString(),
    ]
    return rng.choice(ways)()


def test_ten_thousand_malformed_packets_change_nothing(module_session, info, made_clip):
    """Each is refused, none is stored, and a device beside them is served."""
    rng, many = random.Random(7), 10_000

    def cameras() -> list[dict]:
        """Without whether they are sending: that is a matter of how long ago they did."""
        return [{k: v for k, v in c.items() if k != "sending"} for c in module_session.get("/v1/cameras")]

    before = cameras()

    async def main() -> set[grpc.StatusCode]:
        async with Client(module_session, module_session.camera_cert) as client:
            found: set[grpc.StatusCode] = set()

            async def some(count: int) -> None:
                for _ in range(count):
                    found.add(await client.say(broken(info, rng)))

            await asyncio.gather(*(some(many // 20) for _ in range(20)))
            return found

    assert asyncio.run(main()) == {grpc.StatusCode.INVALID_ARGUMENT}
    assert cameras() == before
    boot = module_session.wait_read(module_session.play(str(made_clip), "beside")["boot_id"])
    assert boot["packets"] == 20


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Server:
    """What takes in what devices say, without a network."""
    return made_server(tmp_path_factory.mktemp("parts"))


def test_what_devices_say_is_taken(parts):
    """So that the fuzzer begins with what is good."""
    for seed in seeds(parts):
        parts.one(seed)
    (boot,) = parts.store.boots()
    assert boot.newest == 3 and parts.store.certificate(boot.boot_id).camera_id == CAMERA


def test_a_request_of_an_unknown_version_is_refused(parts):
    """The fuzzer has found it: the library has an exception of its own for that."""
    asked = EnrolmentRequest.FromString(seeds(parts)[4][1:])
    der = x509.load_pem_x509_csr(asked.request).public_bytes(Encoding.DER).replace(b"\x02\x01\x00", b"\x02\x01\x10", 1)
    body = base64.encodebytes(der).decode()
    asked.request = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n".encode()
    with pytest.raises(x509.InvalidVersion):
        x509.load_pem_x509_csr(asked.request)
    parts.enrol(asked.SerializeToString())


@given(st.data())
def test_whatever_bytes_come_are_taken_or_refused(parts, data):
    """The fuzzer of the wire, in short: bytes of any kind, and what devices say with some of its bytes changed."""
    raw = bytearray(data.draw(st.sampled_from(seeds(parts))))
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(1, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    parts.one(bytes(raw))
    parts.one(data.draw(st.binary(max_size=400)))


def test_numbers_that_nothing_can_hold_are_refused(info):
    """They would be refused with other cameras' packets, by the database, or by whoever reads the API."""
    ingest = Ingest(None, None, {info.id.hex(): info}, None, lambda: None)
    ingest.check(packet(info, "c").SerializeToString(), "c")
    for name, values in {
        "sequence": (1 << 62,), "captured_at_us": (1 << 63, 1 << 58), "ledger_releases": (1 << 62,),
        "ledger_bits": (float("nan"), float("inf"), -1.0),
    }.items():  # fmt: skip
        for value in values:
            with pytest.raises(BadPacketError, match=name):
                ingest.check(packet(info, "c", **{name: value}).SerializeToString(), "c")
