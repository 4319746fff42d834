"""Commands beside a service: users, tokens, labels, and certificates that are good no more."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from test_end_to_end import RUYICAM, one_line

from ruyicam.cloud.errors import Exit
from ruyicam.cloud.serve.care import EventCare
from ruyicam.cloud.serve.store import Store
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.defaults import default_model


@pytest.fixture(scope="module")
def session(tmp_path_factory, signed):
    """A service in which one has to log in."""
    running = BenchSession(default_model(), signed[0], signed[1], folder=tmp_path_factory.mktemp("command") / "session")
    running.server_keys["open"] = False
    with running:
        yield running


def ruyicam(*words: object, stdin: str = "") -> subprocess.CompletedProcess:
    """The command, as a user would run it."""
    return subprocess.run([str(RUYICAM), *map(str, words)], input=stdin, capture_output=True, text=True, timeout=60)


def refused(done: subprocess.CompletedProcess, code: Exit, why: str) -> None:
    """It failed with that code and one line."""
    one_line((done.returncode, done.stderr.splitlines()), code, why)


def test_users_and_tokens_are_made_and_removed(session):
    config = ("--config", session.folder / "server.toml")
    refused(ruyicam("users", "add", "ada", "--role", "boss", *config, stdin="long enough\n"), Exit.USAGE, "--role is 'boss'")
    refused(ruyicam("users", "add", "ada", *config, stdin="short\n"), Exit.USAGE, "the password has 5 characters")
    for name, role in (("ada", "admin"), ("vera", "viewer")):
        assert ruyicam("users", "add", name, "--role", role, *config, stdin="long enough\n").returncode == 0
    listed = json.loads(ruyicam("users", "list", "--json", *config).stdout)
    assert listed == [{"name": "ada", "role": "admin"}, {"name": "vera", "role": "viewer"}]
    assert ruyicam("users", "role", "vera", "operator", *config).returncode == 0
    refused(ruyicam("users", "remove", "ada", *config), Exit.USAGE, "there would be no user with the role admin left")
    assert ruyicam("users", "remove", "vera", *config).returncode == 0
    secret = ruyicam("users", "token", "grafana", "--days", "1", *config).stdout.strip()
    request = urllib.request.Request(f"http://{session.http}/v1/me", headers={"Authorization": f"Bearer {secret}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["name"] == "token:grafana"


def test_labels_are_written_with_their_features(session, shared_clips, tmp_path):
    fight = sorted((shared_clips / "surveillance" / "val" / "fight").glob("*.mp4"))[0]
    boot = session.play(str(fight), "judged")["boot_id"]
    store = Store(f"sqlite:///{session.folder / 'server.db'}")
    while not (found := store.boot(boot)) or not found.closed:
        continue
    (event, *_) = store.events(boot_id=boot)
    assert EventCare(store, ["normal", "fight", "fall"]).judge(event.id, "fall", "ada")
    done = ruyicam("labels", "--config", session.folder / "server.toml", "--out", tmp_path / "labels")
    assert done.returncode == 0 and "wrote 1 judged events" in done.stdout
    assert set(load_file(tmp_path / "labels" / "windows.safetensors")["label"].tolist()) == {2}
    (tmp_path / "file").touch()
    out = Path(tmp_path / "file" / "labels")
    refused(ruyicam("labels", "--config", session.folder / "server.toml", "--out", out), Exit.STORAGE, "cannot write")


def test_certificates_are_put_on_a_list(session, tmp_path):
    authority = session.authority
    words = ("--crl", tmp_path / "crl.pem", "--ca", authority.ca, "--ca-key", authority.keep_key())
    done = ruyicam("certs", "revoke", authority.camera("stolen").cert, *words)
    assert done.returncode == 0 and "1 certificates are on" in done.stdout
    refused(ruyicam("certs", "revoke", tmp_path / "nothing.pem", *words), Exit.CREDENTIALS, "nothing.pem")
