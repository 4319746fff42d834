"""Logging in at an OpenID Connect provider, in a real browser and at a real provider on loopback."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from oidc_provider_mock import User, run_server_in_thread
from playwright.sync_api import expect
from service import client_of

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.serve.accounts import Accounts, Role
from ruyicam.cloud.serve.config import Oidc
from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.serve.web.api import make_api
from ruyicam.cloud.serve.web.oidc import role_of
from ruyicam.export.bench_session import BenchSession, free_port
from ruyicam.export.defaults import default_model

ROLES = {"ward-leads": "operator", "it": "admin", "staff": "viewer"}


def settings_of(tmp_path, **keys) -> Oidc:
    """Of a provider."""
    (tmp_path / "secret").write_text("a secret\n")
    said = {"issuer": "http://127.0.0.1:1", "client_id": "ruyicam", "client_secret": tmp_path / "secret", "roles": ROLES}
    return Oidc.model_validate(said | {"url": "http://127.0.0.1:2"} | keys)


@pytest.fixture(scope="module")
def provider():
    """Who knows three people."""
    people = {"nora": ["staff", "ward-leads"], "max": ["staff"], "eve": ["visitors"]}
    users = [User(sub=name, claims={"preferred_username": name, "groups": groups}) for name, groups in people.items()]
    with run_server_in_thread(user_claims=users, require_nonce=True) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def session(tmp_path_factory, signed, provider):
    """A service at which one logs in there."""
    folder = tmp_path_factory.mktemp("oidc")
    http = f"127.0.0.1:{free_port()}"
    oidc = settings_of(folder, issuer=provider, url=f"http://{http}", name="the hospital").model_dump(mode="json")
    running = BenchSession(default_model(), signed[0], signed[1], folder=folder / "session")
    running.server_keys |= {"open": False, "http": http, "oidc": oidc}
    with running:
        Accounts(Store(f"sqlite:///{running.folder / 'server.db'}")).add_user("nora", Role.ADMIN, "ten or more of them")
        yield running


def log_in(browser, session, name: str):
    """The page after that person has been at the provider."""
    page = browser.new_context().new_page()
    page.goto(f"http://{session.http}/")
    page.get_by_role("link", name="Log in with the hospital").click()
    page.get_by_role("button", name=name).click()
    return page


def test_who_has_a_role_is_let_in_as_that(browser, session):
    page = log_in(browser, session, "nora")
    # Not the administrator of that name whom this service knows by a password.
    expect(page.locator("#who")).to_have_text("oidc:nora, operator")
    expect(page.get_by_role("heading", name="Live")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    accounts = Accounts(Store(f"sqlite:///{session.folder / 'server.db'}"))
    assert {u.name: u.role for u in accounts.users()} == {"nora": "admin", "oidc:nora": "operator"}
    done = [a.action for a in accounts.audit() if a.who == "oidc:nora"]
    assert (done[0], done[-1]) == ("log out", "log in")


def test_who_has_none_is_not(browser, session):
    page = log_in(browser, session, "eve")
    expect(page.get_by_role("alert")).to_have_text("You are known there, but have no role here. Ask an administrator.")
    assert page.url == f"http://{session.http}/"
    assert page.request.get(f"http://{session.http}/v1/me").status == 401


def test_an_answer_that_nobody_asked_for_lets_nobody_in(browser, session):
    page = browser.new_context().new_page()
    page.goto(f"http://{session.http}/v1/oidc/callback?code=stolen&state=guessed")
    expect(page.get_by_role("alert")).to_have_text("The log-in did not work. Try again.")
    assert page.request.get(f"http://{session.http}/v1/me").status == 401


@pytest.mark.parametrize(
    ("claim", "role"),
    [(["staff", "it", "x"], Role.ADMIN), ("staff", Role.VIEWER), (["x"], None), ([], None), (None, None), ("", None)],
)
def test_the_highest_role_counts(tmp_path, claim, role):
    assert role_of({"groups": claim}, settings_of(tmp_path)) == role


def test_the_role_is_what_the_provider_says_now(store):
    accounts = Accounts(store)
    # Also where nobody is an administrator, or is one no more.
    _, first = accounts.log_in_from_outside("nora", Role.ADMIN)
    _, second = accounts.log_in_from_outside("nora", Role.VIEWER)
    assert accounts.of_login(first) == accounts.of_login(second) and accounts.of_login(first).role == Role.VIEWER
    # Nobody knows the password of such a user.
    assert accounts.log_in("oidc:nora", "") is None
    with pytest.raises(RuyicamError, match="name is 'a b'"):
        accounts.log_in_from_outside("a b", Role.VIEWER)


def test_a_provider_that_is_away_and_a_secret_that_is_missing_are_said(backend, tmp_path):
    settings = settings_of(tmp_path)
    assert client_of(backend).get("/v1/login").json() == {"oidc": None}
    browser = TestClient(make_api(backend, settings))
    assert browser.get("/v1/login").json() == {"oidc": "your organisation"}
    assert browser.get("/v1/oidc/login", follow_redirects=False).headers["location"] == "/?login=away"
    settings.client_secret.unlink()
    with pytest.raises(RuyicamError, match="secret") as refused:
        make_api(backend, settings)
    assert refused.value.code == Exit.CREDENTIALS
