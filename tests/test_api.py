"""The HTTP API: who may what, what people do about events, and what is told of it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2.exceptions import VerificationError
from safetensors.numpy import load_file
from service import PASSWORD, boot_of, client_of

from ruyicam.cloud.errors import RuyicamError
from ruyicam.cloud.serve.accounts import Role, TooManyTriesError
from ruyicam.cloud.serve.config import ServerConfig
from ruyicam.cloud.serve.labels import export_labels
from ruyicam.cloud.serve.replay import LONGEST


def test_every_way_in_asks_who_it_is(backend):
    """All paths but those that must be open; a new one that forgets to ask fails here."""
    client, open_ways = client_of(backend), {"/healthz", "/v1/login"}
    checked = 0
    for path, ways in client.app.openapi()["paths"].items():
        for method in ways:
            if path not in open_ways:
                answer = client.request(method, path.replace("{event_id}", "1").replace("{", "").replace("}", ""))
                assert (path, method, answer.status_code) == (path, method, 401)
                checked += 1
    assert checked > 15


def test_roles_say_what_may_be_done(backend):
    (event,) = backend.store.events()
    ways = [
        ("GET", "/v1/events", None, Role.VIEWER),
        ("GET", f"/v1/events/{event.id}/contour", None, Role.VIEWER),
        ("GET", "/v1/cameras", None, Role.VIEWER),
        ("POST", f"/v1/events/{event.id}/acknowledge", None, Role.OPERATOR),
        ("POST", f"/v1/events/{event.id}/judgement", {"label": "fight"}, Role.OPERATOR),
        ("POST", f"/v1/events/{event.id}/notes", {"text": "x"}, Role.OPERATOR),
        ("GET", "/v1/labels", None, Role.OPERATOR),
        ("GET", "/v1/users", None, Role.ADMIN),
        ("GET", "/v1/tokens", None, Role.ADMIN),
        ("GET", "/v1/audit", None, Role.ADMIN),
    ]
    for role in Role:
        client = client_of(backend, role.value)
        for method, path, body, needed in ways:
            want = 200 if role.may(needed) else 403
            assert (role, path, client.request(method, path, json=body).status_code) == (role, path, want)


def test_what_is_behind_an_event_and_what_is_done_about_it(backend):
    client = client_of(backend, "operator")
    (event,) = client.get("/v1/events?alerts=true").json()
    assert (event["behaviour"], event["people"] is not None) == ("fall", True)
    assert [s["why"] for s in event["story"]] == ["figure 1 falls", "figure 1 lies"]
    assert event["story"][0]["begin"] == "1970-01-01T00:00:01.000+00:00"
    here = f"/v1/events/{event['id']}"
    contour = client.get(f"{here}/contour").json()
    assert [t["tick"] for t in contour["ticks"]] == list(range(50))
    assert max(len(t["people"]) for t in contour["ticks"]) == event["people"]
    assert all(len(p) == 51 for t in contour["ticks"] for p in t["people"])

    client.post(f"{here}/acknowledge")
    other = client_of(backend, "admin").post(f"{here}/acknowledge").json()
    assert other["care"]["acknowledged_by"] == "operator"
    assert client.post(f"{here}/judgement", json={"label": "dance"}).json()["detail"].startswith("label is 'dance', expected")
    detail = client.post(f"{here}/judgement", json={"label": "normal"}).json()
    assert detail["care"]["false_alarm"] is True and detail["ledger_releases"] == 7 and detail["certificate"] is False
    assert client.post(f"{here}/notes", json={"text": "hello"}).json()["notes"][0]["by"] == "operator"
    assert client.post("/v1/events/99/acknowledge").status_code == 404
    kinds = [c.kind for c in backend.store.changes(0)]
    assert kinds == ["begin", "update", "acknowledge", "acknowledge", "judge", "note"]
    said = [(a.who, a.action) for a in backend.accounts.audit()]
    assert ("operator", "replay") in said and ("operator", "judge normal") in said


def test_labels_are_what_somebody_judged_with_the_features_it_was_judged_by(backend, family, tmp_path):
    client = client_of(backend, "operator")
    assert client.get("/v1/labels").text == ""
    (event,) = backend.store.events()
    client.post(f"/v1/events/{event.id}/judgement", json={"label": "normal"})
    (line,) = map(json.loads, client.get("/v1/labels").text.splitlines())
    assert (line["predicted"], line["label"], line["first_tick"], line["last_tick"]) == ("fall", "normal", 0, 49)
    assert export_labels(backend.store, family.config, backend.bundles, tmp_path / "labels") == 1
    arrays = load_file(tmp_path / "labels" / "windows.safetensors")
    assert arrays["features"].shape == (2, 40, family.config.features) and arrays["valid"].all()
    assert arrays["label"].tolist() == [0, 0]
    (row,) = map(json.loads, (tmp_path / "labels" / "labels.jsonl").read_text().splitlines())
    assert (row["first_window"], row["windows"]) == (0, 2)


def test_a_long_run_is_told_in_parts(backend):
    client, here = client_of(backend, "viewer"), f"/v1/boots/{boot_of(backend.store, 'a').boot_id}"
    every = client.get(here).json()["windows"]
    last = every[-1]["start"]
    newest = client.get(f"{here}?limit=1").json()["windows"]
    assert {w["start"] for w in newest} == {last} and len({w["start"] for w in every}) > 1
    assert client.get(f"{here}?before={last}").json()["windows"] + newest == every
    assert client.get(f"{here}?before=0").json()["windows"] == []
    assert client.get(f"{here}?limit=0").status_code == 422


def test_a_contour_goes_when_its_features_go_and_is_bounded(backend, monkeypatch):
    boot = boot_of(backend.store, "a").boot_id
    assert len(backend.replay.contour(boot, 20, 49)) == 50
    monkeypatch.setattr("ruyicam.cloud.serve.replay.LONGEST", 30)
    assert [t for t, _, _ in backend.replay.contour(boot, 0, 49)] == list(range(20, 50))
    assert LONGEST == 3000
    assert backend.replay.contour("0" * 32, 0, 49) == []
    with backend.store.write() as connection:
        connection.exec_driver_sql("DELETE FROM packets")
    assert backend.replay.contour(boot, 0, 49) == []


def test_cookies_of_browsers_do_not_serve_other_sites(backend):
    client = client_of(backend, "operator")
    (event,) = backend.store.events()
    path = f"/v1/events/{event.id}/acknowledge"
    assert client.post(path, headers={"Origin": "http://elsewhere.example"}).status_code == 403
    assert client.post(path, headers={"Origin": "http://testserver"}).status_code == 200


def test_failed_logins_have_to_wait_and_sessions_end(backend):
    accounts = backend.accounts
    _, secret = accounts.log_in("viewer", PASSWORD)
    assert accounts.of_login(secret).name == "viewer"
    accounts.change_user("viewer", password="another long one")
    assert accounts.of_login(secret) is None
    assert accounts.log_in("nobody", PASSWORD) is None
    for _ in range(5):
        assert accounts.log_in("viewer", PASSWORD) is None
    with pytest.raises(TooManyTriesError):
        accounts.log_in("viewer", "another long one")
    answer = client_of(backend).post("/v1/login", json={"name": "viewer", "password": "another long one"})
    assert answer.status_code == 429 and answer.headers["Retry-After"] == "60"


def test_many_logins_at_once_do_not_each_take_their_memory(backend, monkeypatch):
    accounts, now, most = backend.accounts, [], []

    class Slow:
        @staticmethod
        def verify(known, password):
            now.append(1)
            most.append(len(now))
            time.sleep(0.2)
            now.pop()
            raise VerificationError

    def try_it(i):
        try:
            return accounts.log_in(f"nobody-{i}", PASSWORD)
        except TooManyTriesError:
            return "later"

    monkeypatch.setattr(accounts, "_hasher", Slow)
    with ThreadPoolExecutor(40) as pool:
        said = list(pool.map(try_it, range(40)))
    assert max(most) == 2
    assert said.count(None) == len(most) >= 2 and said.count("later") == 40 - len(most) > 0


def test_tokens_let_programs_in_until_they_are_removed_or_over(backend, monkeypatch):
    admin = client_of(backend, "admin")
    secret = admin.post("/v1/tokens", json={"name": "grafana", "role": "viewer", "days": 1}).json()["secret"]
    program, shown = client_of(backend), {"Authorization": f"Bearer {secret}"}
    assert program.get("/v1/me", headers=shown).json()["name"] == "token:grafana"
    assert program.get("/v1/users", headers=shown).status_code == 403
    assert admin.post("/v1/tokens", json={"name": "grafana", "role": "viewer"}).json() == {"detail": "token 'grafana' exists"}
    tomorrow = time.time() + 90000
    with monkeypatch.context() as later:
        later.setattr("ruyicam.cloud.serve.accounts.time.time", lambda: tomorrow)
        assert program.get("/v1/me", headers=shown).status_code == 401
    assert admin.delete("/v1/tokens/grafana").status_code == 204
    assert program.get("/v1/me", headers=shown).status_code == 401


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ({"name": "a b", "role": "viewer", "password": PASSWORD}, "name is 'a b', expected"),
        ({"name": "x", "role": "viewer", "password": "short"}, "the password has 5 characters, expected at least 10"),
        ({"name": "viewer", "role": "viewer", "password": PASSWORD}, "user 'viewer' exists"),
    ],
)
def test_users_that_cannot_be_are_refused_in_one_line(backend, user, why):
    answer = client_of(backend, "admin").post("/v1/users", json=user)
    assert answer.status_code == 422 and answer.json()["detail"].startswith(why)


def test_an_administrator_is_always_left(backend):
    with pytest.raises(RuyicamError, match="no user with the role admin left"):
        backend.accounts.remove_user("admin")
    with pytest.raises(RuyicamError, match="no user with the role admin left"):
        backend.accounts.change_user("admin", Role.VIEWER)
    assert [u.name for u in backend.accounts.users()] == ["admin", "operator", "viewer"]


def test_an_open_api_is_only_for_loopback():
    keys = {"ca": "a", "cert": "b", "key": "c", "model": "m", "bundles": ["x"], "public_key": "p", "open": True}
    assert ServerConfig(**keys).open
    with pytest.raises(ValueError, match=r"open is true, but http is 0\.0\.0\.0:80, expected 127\.0\.0\.1"):
        ServerConfig(http="0.0.0.0:80", **keys)
