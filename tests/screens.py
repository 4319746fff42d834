"""Takes the pictures of the operator's page: python -P tests/screens.py DATA docs, with DATA/surveillance/val/fight/*.mp4."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from ruyicam.cloud.family import Family
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.defaults import default_model
from ruyicam.export.evaluate import export_throwaway

CAMERAS = ("platform-3", "stairs", "ward-1", "ward-2")


def play(session: BenchSession, name: str, clips: list[Path], over: threading.Event) -> None:
    """A camera that films one clip after the other."""
    own = session.authority.camera(name)
    for number, clip in enumerate(clips * 100):
        keys = {"camera_id": name, "cert": own.cert, "key": own.key, "realtime": True, "source_retry": "never"}
        command = session.edge_command(str(clip), session.folder / f"{name}-{number}", **keys)
        device = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while device.poll() is None and not over.is_set():
            time.sleep(0.1)
        device.kill()
        device.wait()
        if over.is_set():
            return


def main(data: Path, out: Path) -> None:
    """page-wall.png and page-event.png."""
    clips = sorted((data / "surveillance" / "val" / "fight").glob("*.mp4"))[:8]
    folder = Path(tempfile.mkdtemp(prefix="ruyicam-"))
    report, public = export_throwaway(Family.from_pretrained(default_model()), folder, clips[0])
    with BenchSession(default_model(), report.path, public, folder=folder / "session") as session:
        over = threading.Event()
        threads = [
            threading.Thread(target=play, args=(session, name, clips[2 * i :] + clips[: 2 * i], over))
            for i, name in enumerate(CAMERAS)
        ]
        for thread in threads:
            thread.start()
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = chromium.new_context(viewport={"width": 1200, "height": 720}).new_page()
            page.goto(f"http://{session.http}/")
            page.locator("#alerts li").first.wait_for(timeout=120_000)
            time.sleep(3)
            page.screenshot(path=out / "page-wall.png")
            page = chromium.new_context(viewport={"width": 1200, "height": 1150}, color_scheme="dark").new_page()
            page.goto(f"http://{session.http}/#events")
            page.locator(".list a").nth(2).click()
            page.get_by_role("button", name="Play").click()
            time.sleep(1.5)
            page.evaluate("document.getElementById('alerts').style.cssText = 'max-height: 4rem; overflow: hidden'")
            page.screenshot(path=out / "page-event.png")
            chromium.close()
        over.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
