// What capture and fetch share of GStreamer.
#pragma once
#include <gst/gst.h>

#include <memory>
#include <optional>
#include <string>

namespace ruyicam::edge {

inline bool starts_with(const std::string& s, const char* prefix) { return s.rfind(prefix, 0) == 0; }

struct FreeError {
  void operator()(GError* e) const { g_error_free(e); }
};

// "cannot be opened: …" or "cannot be decoded: …" if an element has reported an error, waiting `timeout_ns` for one; an
// empty text if the stream ended meanwhile; nullopt otherwise.
std::optional<std::string> bus_error(GstElement* bin, GstClockTime timeout_ns);

}  // namespace ruyicam::edge
