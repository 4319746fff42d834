"""A camera for tests: serves RTSP on loopback. Run by the system's Python, which has GStreamer's bindings.

rtsp_server.py CLIP [PORT]            an MP4 file of H.264, once for every client
rtsp_server.py WIDTHxHEIGHT [PORT]    a moving ball in motion JPEG, for ever
"""

import sys
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
what, port = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "0"
if Path(what).exists():
    launch = f"( filesrc location={what} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 )"
else:
    width, height = what.split("x")
    caps = f"video/x-raw,format=I420,width={width},height={height},framerate=20/1"
    launch = f"( videotestsrc is-live=true pattern=ball ! {caps} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(launch)
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print(f"rtsp://127.0.0.1:{server.get_bound_port()}/camera", flush=True)
GLib.MainLoop().run()
