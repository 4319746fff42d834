"""A new device gets its certificate for a token that is good once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from test_end_to_end import RUYICAM, one_line

from ruyicam.cloud.errors import Exit
from ruyicam.cloud.serve.enrol import new_token
from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.wire import ENROL, ENROLMENT, Enrolled, EnrolmentRequest
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.defaults import default_model
from ruyicam.export.pki import Authority


@pytest.fixture(scope="module")
def session(tmp_path_factory, signed):
    """A server that enrols devices."""
    folder = tmp_path_factory.mktemp("enrolment") / "session"
    running = BenchSession(default_model(), signed[0], signed[1], folder=folder)
    running.server_keys |= {"enrol": "127.0.0.1:0", "ca_key": str(folder / "tls" / "ca.key")}
    with running:
        yield running


@pytest.fixture(scope="module")
def store(session) -> Store:
    """The server's database."""
    return Store(f"sqlite:///{session.folder / 'server.db'}")


def enrol(session: BenchSession, folder: Path, token: str, camera: str = "new-camera", **keys) -> tuple[int, list[str]]:
    """Exit code and stderr of `ruyicam-edge enrol` for a device whose files lie in a folder."""
    keys = {"camera_id": camera, "cert": folder / "device.pem", "key": folder / "device.key"} | keys
    command = session.edge_command("none", folder / "state", **keys)
    words = [command[0], "enrol", "--token", "-", "--at", session.enrol, *command[1:]]
    done = subprocess.run(words, input=token + "\n", capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr.splitlines()


def test_a_new_device_enrols_once_and_delivers(session, made_clip, tmp_path):
    done = subprocess.run(
        [RUYICAM, "enrol", "--config", session.folder / "server.toml", "--camera", "new-camera", "--json"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    token = json.loads(done.stdout)["token"]
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert enrol(session, tmp_path / "one", token) == (0, [])
    cert, key = tmp_path / "one" / "device.pem", tmp_path / "one" / "device.key"
    assert key.stat().st_mode & 0o777 == 0o600 and b"CERTIFICATE" in cert.read_bytes()
    stats = session.play(str(made_clip), "enrolled", camera_id="new-camera", cert=cert, key=key)
    assert session.wait_read(stats["boot_id"])["camera_id"] == "new-camera"
    # Good once: for no other device, but for this one again, should the answer have been lost.
    one_line(enrol(session, tmp_path / "other", token), Exit.CREDENTIALS, "used")
    one_line(enrol(session, tmp_path / "one", token), Exit.USAGE, "exists already")
    cert.unlink()
    assert enrol(session, tmp_path / "one", token) == (0, [])
    # It is a client's, and no authority.
    issued = x509.load_pem_x509_certificate(cert.read_bytes())
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_what_is_refused(session, store, tmp_path):
    for token in ("00" * 20, new_token(store, "new-camera", -1), new_token(store, "another", 1)):
        one_line(enrol(session, tmp_path, token), Exit.CREDENTIALS, "refuses")
        assert not (tmp_path / "device.pem").exists()
    good = new_token(store, "new-camera", 1)
    stranger = Authority(tmp_path / "stranger").ca
    one_line(enrol(session, tmp_path, good, ca=stranger), Exit.UNDELIVERED, "not of")
    (tmp_path / "device.key").write_text("no key")
    one_line(enrol(session, tmp_path, good), Exit.CREDENTIALS, "not a private key")
    # None of that has spent it.
    (tmp_path / "device.key").unlink()
    assert enrol(session, tmp_path, good) == (0, [])


def test_requests_that_no_device_of_ours_sends(session, store):
    credentials = grpc.ssl_channel_credentials(session.authority.ca.read_bytes())
    weak = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(weak, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM)
    token = new_token(store, "weak", 1)
    with grpc.secure_channel(session.enrol, credentials) as channel:
        call = channel.unary_unary(f"/{ENROLMENT}/{ENROL}", bytes, Enrolled.FromString)
        good = EnrolmentRequest(token=token, request=pem).SerializeToString()
        for raw in (b"\xff", b"", EnrolmentRequest(token=token, request=b"no request").SerializeToString(), good):
            with pytest.raises(grpc.RpcError) as error:
                call(raw, timeout=10)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        # The uplink's own calls are not to be had here.
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/ruyicam.v1.Uplink/Certify")(b"", timeout=10)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_one_line_for_what_is_wrong(session, tmp_path):
    def command(*words) -> tuple[int, list[str]]:
        done = subprocess.run([RUYICAM, *map(str, words)], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr.splitlines()

    config = session.folder / "server.toml"
    one_line(command("enrol", "--config", config, "--camera", "no spaces"), Exit.USAGE, "--camera")
    plain = tmp_path / "plain.toml"
    plain.write_text("\n".join(line for line in config.read_text().splitlines() if not line.startswith(("enrol", "ca_key"))))
    one_line(command("enrol", "--config", plain, "--camera", "x"), Exit.USAGE, "nobody can enrol")
    plain.write_text("\n".join(line for line in config.read_text().splitlines() if not line.startswith("ca_key")))
    one_line(command("serve", "--config", plain), Exit.USAGE, "enrol needs ca_key")
    wrong = config.read_text().replace(str(session.folder / "tls" / "ca.key"), str(session.server_cert.key))
    plain.write_text(wrong)
    one_line(command("serve", "--config", plain), Exit.CREDENTIALS, "is not the key of")
