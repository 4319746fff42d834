"""A test pattern over RTSP whose changes are dated. Run by the system's Python, which has GStreamer's bindings.

pattern_server.py ADDRESS SEED

Prints its URL, then a line `SECONDS 0|1` (CLOCK_MONOTONIC) for every frame that differs from the one before in whether
something moves.
"""

import random
import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstApp, GstRtspServer  # noqa: E402, F401

WIDTH, HEIGHT, FPS = 640, 480, 25
Gst.init(None)
address, rng = sys.argv[1], random.Random(int(sys.argv[2]))
ground = bytes(rng.randrange(60, 120) for _ in range(WIDTH * HEIGHT))
chroma = bytes([128]) * (WIDTH * HEIGHT // 2)


def picture(number: int, moving: bool) -> bytes:
    """Grain that stands still, and three figures that cross it."""
    if not moving:
        return ground + chroma
    rows = bytearray(ground)
    for k in range(3):
        x = (number * 23 + k * 211) % (WIDTH - 60)
        for y in range(90 + 100 * k, 230 + 100 * k):
            rows[y * WIDTH + x : y * WIDTH + x + 60] = b"\xe6" * 60
    return bytes(rows) + chroma


class Pattern:
    """Frames at their own pace, since the first client came."""

    def __init__(self):
        self.moving, self.number, self.next_change, self.begun = False, 0, 0.0, 0.0

    def feed(self, source, _) -> None:
        now = time.monotonic()
        if not self.begun:
            # Time for the device to connect and to learn the background.
            self.begun, self.next_change = now, now + 8
        due = self.begun + self.number / FPS
        if due > now:
            time.sleep(due - now)
        now = time.monotonic()
        if now >= self.next_change:
            self.moving = not self.moving
            self.next_change = now + rng.uniform(1.5, 3.5)
            print(now, int(self.moving), flush=True)
        buffer = Gst.Buffer.new_wrapped(picture(self.number, self.moving))
        buffer.pts = self.number * Gst.SECOND // FPS
        buffer.duration = Gst.SECOND // FPS
        self.number += 1
        source.emit("push-buffer", buffer)


def configure(_factory, media) -> None:
    """Called for the one media that all clients share."""
    source = media.get_element().get_by_name("pattern")
    source.connect("need-data", Pattern().feed)


caps = f"video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1"
server = GstRtspServer.RTSPServer()
server.set_address(address)
server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f"( appsrc name=pattern is-live=true format=time caps={caps} "
    "! openh264enc complexity=low gop-size=50 bitrate=4000000 ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)
factory.set_shared(True)
factory.connect("media-configure", configure)
server.get_mount_points().add_factory("/pattern", factory)
server.attach(None)
print(f"rtsp://{address}:{server.get_bound_port()}/pattern", flush=True)
GLib.MainLoop().run()
