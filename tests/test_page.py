"""The operator's page in a real Chromium, beside the real service and the real device."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from service import Target

from ruyicam.cloud.serve.accounts import Accounts, Role
from ruyicam.cloud.serve.store import Store
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.defaults import default_model

PASSWORDS = {"ada": "a long enough one", "otto": "another long one", "vera": "the third of them"}
ROLES = {"ada": Role.ADMIN, "otto": Role.OPERATOR, "vera": Role.VIEWER}


@pytest.fixture(scope="module")
def session(tmp_path_factory, signed):
    """A service in which one has to log in, and its three users."""
    running = BenchSession(default_model(), signed[0], signed[1], folder=tmp_path_factory.mktemp("page") / "session")
    running.server_keys["open"] = False
    with running:
        accounts = Accounts(Store(f"sqlite:///{running.folder / 'server.db'}"))
        for name, password in PASSWORDS.items():
            accounts.add_user(name, ROLES[name], password)
        yield running


HEADINGS = {"wall": "Live", "events": "Events", "cameras": "Cameras", "rules": "Rules", "users": "Users", "log": "Who saw what"}

# Notes when each alert came onto the page.
NOTE_ALERTS = """() => {
  window.seen = {};
  const look = () => {
    for (const e of document.querySelectorAll("#alerts [data-event]")) window.seen[e.dataset.event] ??= Date.now();
  };
  new MutationObserver(look).observe(document.getElementById("alerts"), {childList: true, subtree: true});
}"""


def log_in(browser: Browser, session: BenchSession, name: str, **context) -> Page:
    """The page of one who has logged in; what its console says is in `page.said`."""
    page = browser.new_context(**context).new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(f"http://{session.http}/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORDS[name])
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#who")).to_have_text(f"{name}, {ROLES[name].value}")
    page.said.clear()
    return page


def serious(page: Page) -> list[str]:
    """What axe finds of serious or critical impact."""
    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {v['help']} {[n['target'] for n in v['nodes']]}" for v in found if v["impact"] in ("serious", "critical")
    ]


@pytest.fixture(scope="module")
def fight(session, shared_clips):
    """Plays real fights at their own pace until it is told to stop; returns the function that does."""
    stop, clips = threading.Event(), sorted((shared_clips / "surveillance" / "val" / "fight").glob("*.mp4"))[:6]

    def play() -> None:
        for number in range(1000):
            command = session.edge_command(str(clips[number % len(clips)]), session.folder / f"live-{number}", realtime=True)
            device = subprocess.Popen([*command, "--source_retry", "never"], stderr=subprocess.DEVNULL)
            while device.poll() is None and not stop.is_set():
                time.sleep(0.1)
            device.kill()
            device.wait()
            if stop.is_set():
                return

    thread = threading.Thread(target=play)
    thread.start()
    yield stop.set
    stop.set()
    thread.join()


def test_nobody_is_let_in_without_a_password(browser, session):
    page = browser.new_context().new_page()
    page.goto(f"http://{session.http}/")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("not that one")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("no user of that name has that password")
    assert serious(page) == []
    assert page.request.get(f"http://{session.http}/v1/events").status == 401


def test_an_alert_from_the_camera_to_the_label(browser, session, fight, tmp_path, record_property):
    """Log in, see a live contour, get an alert, replay it, acknowledge it, mark it false, export labels."""
    page = log_in(browser, session, "otto")
    page.evaluate(NOTE_ALERTS)
    contour = page.locator("[data-camera='camera-1'] canvas")
    expect(contour).to_have_attribute("data-people", re.compile(r"[1-5]"), timeout=60_000)
    alert = page.locator("#alerts li").first
    expect(alert).to_be_visible(timeout=60_000)
    assert serious(page) == []
    event = int(alert.get_attribute("data-event"))
    store = Store(f"sqlite:///{session.folder / 'server.db'}")
    begin = next(c for c in store.changes(0) if c.event_id == event and c.kind == "begin").event
    (last,) = store.packets(begin["camera_id"], begin["boot_id"], begin["last_tick"], begin["last_tick"])
    delay_s = page.evaluate("id => window.seen[id]", event) / 1000 - last.received_at
    record_property("packet_to_alert_s", delay_s)
    print(f"packet to alert on the page: {delay_s:.2f} s")
    assert delay_s < 2

    alert.get_by_role("link", name="Look at it").click()
    replay = page.locator(".player canvas")
    position = page.get_by_label("Time within the event")
    expect(position).not_to_have_attribute("max", "0")
    before = int(position.input_value())
    page.get_by_role("button", name="Play").click()
    expect(replay).to_have_attribute("data-people", re.compile(r"[1-5]"), timeout=10_000)
    page.wait_for_function("before => document.querySelector('.controls input').value > before", arg=before)
    assert serious(page) == []

    page.get_by_role("region", name="Event", exact=True).get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("Acknowledged by otto")).to_be_visible()
    expect(page.locator(f"#alerts li[data-event='{event}']")).to_have_count(0)
    page.get_by_role("textbox", name="Note").fill("two nurses, a <b>hug</b>")
    page.get_by_role("button", name="Write note").click()
    expect(page.get_by_label("Notes")).to_contain_text("two nurses, a <b>hug</b> (otto")
    page.get_by_role("button", name="False alarm").click()
    expect(page.get_by_text("It was normal (false alarm), says otto.")).to_be_visible()
    fight()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export labels").click()
    (label,) = map(json.loads, Path(download.value.path()).read_text().splitlines())
    assert (label["event_id"], label["label"], label["judged_by"]) == (event, "normal", "otto")
    assert page.said == []


def test_the_keyboard_is_enough(browser, session, fight):
    page = log_in(browser, session, "otto")
    while "camera-1" not in page.request.get(f"http://{session.http}/v1/cameras").text():
        page.wait_for_timeout(200)
    # Who has clicked goes on from there; who has not begins at the beginning.
    page.reload()
    expect(page.locator("#who")).to_have_text("otto, operator")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Cameras":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Cameras")).to_be_visible()
    expect(page.get_by_role("table", name="Each camera's latest run")).to_contain_text("camera-1")


def test_a_viewer_only_looks(browser, session, fight):
    page = log_in(browser, session, "vera")
    expect(page.get_by_role("link", name="Users")).to_have_count(0)
    page.get_by_role("link", name="Events").click()
    expect(page.get_by_role("heading", name="Events")).to_be_visible()
    expect(page.get_by_role("link", name="Export labels")).to_have_count(0)
    page.goto(f"http://{session.http}/#users")
    expect(page.get_by_role("heading", name="Live")).to_be_visible()
    expect(page.get_by_role("heading", name="Users")).to_have_count(0)


def test_an_administrator_says_who_may_what(browser, session):
    page = log_in(browser, session, "ada")
    page.get_by_role("link", name="Users").click()
    page.get_by_label("Name").first.fill("nora")
    page.get_by_label("Password").fill("short but ten")
    page.get_by_role("button", name="Add user").click()
    expect(page.get_by_role("button", name="Remove nora")).to_be_visible()
    page.get_by_label("role of nora").select_option("operator")
    page.get_by_role("button", name="Remove ada").click()
    expect(page.get_by_role("alert")).to_have_text("there would be no user with the role admin left")
    page.get_by_role("button", name="Remove nora").click()
    expect(page.get_by_role("button", name="Remove nora")).to_have_count(0)
    page.get_by_label("Name").last.fill("grafana")
    page.get_by_role("button", name="New token").click()
    expect(page.get_by_role("status")).to_contain_text("grafana")
    secret = page.get_by_role("status").inner_text().rsplit(" ", 1)[1]
    answer = page.context.request.get(f"http://{session.http}/metrics", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status == 200 and "ruyicam_packets_total" in answer.text()
    assert serious(page) == []
    page.get_by_role("link", name="Log", exact=True).click()
    # By name: the view before still stands while this one's rows are asked for, and its two tables would make the locator fail.
    expect(page.get_by_role("table", name="Newest first")).to_contain_text("grafana as viewer")
    assert serious(page) == []


def test_rules_are_made_and_channels_tried(browser, session):
    with Target() as target:
        page = log_in(browser, session, "ada")
        page.get_by_role("link", name="Rules").click()
        page.get_by_text("New webhook").click()
        form = page.locator("details", has_text="New webhook")
        form.get_by_label("Name").fill("pager")
        form.get_by_label("URL").fill(target.url)
        form.get_by_role("button", name="Save channel").click()
        page.get_by_role("button", name="Test pager").click()
        expect(page.get_by_role("status")).to_have_text("A test was sent to pager.")
        assert json.loads(target.got[0][1])["type"] == "ruyicam.alert.test"
        page.get_by_text("New rule, or another form of one").click()
        form = page.locator("details", has_text="New rule, or another form of one")
        form.get_by_label("Name").fill("nights")
        form.get_by_label("Cameras (patterns)").fill("ward-* stairs")
        form.get_by_label("Behaviours (none: all)").select_option("fall")
        form.get_by_label("Tells").select_option("pager")
        form.get_by_label("Hours", exact=True).fill("22:00-06:00")
        form.locator("canvas").click(position={"x": 16, "y": 12})
        form.locator("canvas").click(position={"x": 144, "y": 12})
        form.locator("canvas").click(position={"x": 80, "y": 108})
        form.get_by_role("button", name="Save rule").click()
        table = page.get_by_role("table", name="Rules")
        expect(table).to_contain_text("fall, at ward-*, stairs, in a zone of 3 corners, 22:00-06:00")
        (rule,) = page.context.request.get(f"http://{session.http}/v1/rules").json()
        assert rule["zone"][0] == pytest.approx([0.1, 0.1], abs=0.02) and rule["to"] == ["pager"]
        assert serious(page) == []
        page.get_by_role("button", name="Remove pager").click()
        expect(page.get_by_role("alert")).to_have_text("rule 'nights' tells channel 'pager'")
        page.route("**/v1/channels", lambda route: route.abort())
        page.get_by_role("button", name="Remove nights").click()
        # It is removed, and that the list could not be fetched again is another matter.
        expect(page.get_by_role("status")).to_have_text("nights is removed.")
        expect(page.get_by_role("alert")).to_be_visible()
        page.unroute("**/v1/channels")
        page.get_by_role("button", name="Remove pager").click()
        expect(page.get_by_text("A rule needs a channel to tell.")).to_be_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [(1280, 800), (360, 740)])
def test_every_view_in_dark_and_light_at_any_width(browser, session, scheme, size):
    width, height = size
    page = log_in(browser, session, "ada", color_scheme=scheme, viewport={"width": width, "height": height})
    for view, heading in HEADINGS.items():
        page.goto(f"http://{session.http}/#{view}")
        expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()
        assert serious(page) == [], view
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    assert page.said == []


def test_a_service_that_is_away_is_said_and_a_login_that_is_over_asked_for(browser, session):
    page = log_in(browser, session, "otto")
    expect(page.get_by_role("heading", name="Live")).to_be_visible()
    session.stop_server()
    expect(page.get_by_role("alert")).to_contain_text("The connection to the service is lost")
    session.start_server()
    expect(page.get_by_role("alert")).to_be_hidden(timeout=30_000)
    session.stop_server()
    with Store(f"sqlite:///{session.folder / 'server.db'}").write() as connection:
        connection.exec_driver_sql("DELETE FROM logins")
    session.start_server()
    expect(page.get_by_role("button", name="Log in")).to_be_visible(timeout=30_000)


def test_the_pages_of_the_api_need_nothing_from_elsewhere(browser, session):
    page = log_in(browser, session, "ada")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"http://{session.http}/docs")
    expect(page.get_by_text("/v1/cameras/{camera_id}", exact=True).first).to_be_visible()
    # Browsers ask for pictures in the page itself as for any other.
    assert [url for url in asked if not url.startswith((f"http://{session.http}/", "data:"))] == []
    assert page.said == []


def test_logging_out_ends_it(browser, session):
    page = log_in(browser, session, "vera")
    cookies = page.context.cookies()
    assert all(c["httpOnly"] and c["sameSite"] == "Strict" for c in cookies) and len(cookies) == 1
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    page.context.add_cookies(cookies)
    assert page.context.request.get(f"http://{session.http}/v1/me").status == 401
