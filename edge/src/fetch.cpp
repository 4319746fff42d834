#include <gst/gst.h>
#include <unistd.h>

#include <cstring>

#include "capture.hpp"
#include "error.hpp"
#include "gst.hpp"

namespace ruyicam::edge {

std::optional<std::string> bus_error(GstElement* bin, GstClockTime timeout_ns) {
  GstBus* bus = gst_element_get_bus(bin);
  const auto kinds = GstMessageType(timeout_ns > 0 ? GST_MESSAGE_ERROR | GST_MESSAGE_EOS : GST_MESSAGE_ERROR);
  GstMessage* message = gst_bus_timed_pop_filtered(bus, timeout_ns, kinds);
  gst_object_unref(bus);
  if (!message) return std::nullopt;
  std::string why;
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
    GError* raw = nullptr;
    gst_message_parse_error(message, &raw, nullptr);
    const std::unique_ptr<GError, FreeError> error(raw);
    why = std::string(error->domain == GST_STREAM_ERROR ? "cannot be decoded: " : "cannot be opened: ") + error->message;
  }
  gst_message_unref(message);
  return why;
}

bool is_remote(const std::string& source) { return starts_with(source, "rtsp://") || starts_with(source, "rtsps://"); }

bool is_live(const std::string& source) {
  return is_remote(source) || starts_with(source, "v4l2:") || starts_with(source, "csi:") || starts_with(source, "frames:");
}

int fetch(const std::string& source, int timeout_s, int fd, int error_fd) {
  const auto fail = [&](const std::string& why) {
    const std::string line = "source " + shown_source(source) + ": " + why;
    (void)!::write(error_fd, line.data(), line.size());
    return 1;
  };
  gst_init(nullptr, nullptr);
  const std::string text =
      "rtspsrc name=source protocols=tcp latency=100 ! application/x-rtp,media=video ! parsebin ! "
      "matroskamux streamable=true ! fdsink fd=" + std::to_string(fd);
  GError* raw = nullptr;
  GstElement* bin = gst_parse_launch(text.c_str(), &raw);
  if (raw) {
    const std::unique_ptr<GError, FreeError> error(raw);
    return fail(std::string("not a pipeline: ") + error->message);
  }
  GstElement* element = gst_bin_get_by_name(GST_BIN(bin), "source");
  g_object_set(element, "location", source.c_str(), "tcp-timeout", guint64(timeout_s) * 1000000, nullptr);
  gst_object_unref(element);
  gst_element_set_state(bin, GST_STATE_PLAYING);
  const auto why = bus_error(bin, GST_CLOCK_TIME_NONE);
  gst_element_set_state(bin, GST_STATE_NULL);
  gst_object_unref(bin);
  return why && !why->empty() ? fail(*why) : 0;
}

}  // namespace ruyicam::edge
