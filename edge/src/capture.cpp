#include "capture.hpp"

#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gst/video/video.h>

#include <chrono>
#include <filesystem>

#include "error.hpp"
#include "gst.hpp"

namespace ruyicam::edge {
namespace {

// Formats whose first plane is 8-bit luma: the decoder's own format passes through without conversion.
constexpr const char* kLumaCaps =
    "video/x-raw,format=(string){ I420, NV12, GRAY8, YV12, NV21, Y42B, Y444 }";

}  // namespace

std::string shown_source(const std::string& source) {
  const size_t scheme = source.find("://");
  if (scheme == std::string::npos) return source;
  const size_t host = scheme + 3, at = source.find('@', host);
  if (at == std::string::npos || at > source.find('/', host)) return source;
  return source.substr(0, host) + source.substr(at + 1);
}

struct Capture::Pipeline {
  CaptureOptions options;
  GstElement* bin = nullptr;
  GstElement* sink = nullptr;
  bool live = false, any = false;
  uint64_t first_ns = 0, bytes = 0;

  ~Pipeline() {
    if (bin) {
      gst_element_set_state(bin, GST_STATE_NULL);
      gst_object_unref(bin);
    }
    if (sink) gst_object_unref(sink);
  }

  Error failure(const std::string& why) const { return Error(Exit::kSource, "source " + shown_source(options.source) + ": " + why); }

  // Throws if an element reported an error.
  void check_bus() const {
    if (const auto why = bus_error(bin, 0)) throw failure(*why);
  }
};

Capture::Capture(CaptureOptions options) : pipeline_(std::make_unique<Pipeline>()) {
  gst_init(nullptr, nullptr);
  Pipeline& p = *pipeline_;
  p.options = std::move(options);
  const std::string& source = p.options.source;
  std::string head, name, value;
  if (p.options.fd >= 0) {
    p.live = true;
    head = "fdsrc fd=" + std::to_string(p.options.fd) + " ! decodebin";
  } else if (starts_with(source, "v4l2:")) {
    p.live = true;
    head = "v4l2src name=source ! decodebin";
    name = "device";
    value = source.substr(5);
  } else if (starts_with(source, "pipeline:")) {
    head = source.substr(9);
  } else {
    std::error_code problem;
    if (!std::filesystem::exists(source, problem)) throw p.failure("no such file");
    if (!std::filesystem::is_regular_file(source, problem)) throw p.failure("not a regular file");
    p.bytes = std::filesystem::file_size(source, problem);
    head = "filesrc name=source ! decodebin";
    name = "location";
    value = source;
  }
  const std::string text = head + " ! videoconvert ! " + kLumaCaps + " ! appsink name=luma max-buffers=4";
  GError* raw = nullptr;
  p.bin = gst_parse_launch(text.c_str(), &raw);
  if (raw) {
    const std::unique_ptr<GError, FreeError> error(raw);
    throw p.failure(std::string("not a pipeline: ") + error->message);
  }
  if (!name.empty()) {
    GstElement* element = gst_bin_get_by_name(GST_BIN(p.bin), "source");
    g_object_set(element, name.c_str(), value.c_str(), nullptr);
    gst_object_unref(element);
  }
  p.sink = gst_bin_get_by_name(GST_BIN(p.bin), "luma");
  const GstStateChangeReturn paused = gst_element_set_state(p.bin, GST_STATE_PAUSED);
  // Only live elements have no preroll; a live source must not wait for us, any other must.
  p.live = p.live || paused == GST_STATE_CHANGE_NO_PREROLL;
  const bool paced = p.options.realtime && !p.live;
  g_object_set(p.sink, "sync", gboolean(paced), "drop", gboolean(p.live), nullptr);
  if (paused == GST_STATE_CHANGE_FAILURE ||
      gst_element_set_state(p.bin, GST_STATE_PLAYING) == GST_STATE_CHANGE_FAILURE) {
    p.check_bus();
    throw p.failure("cannot be opened");
  }
}

Capture::~Capture() = default;

bool Capture::next(const std::function<void(const LumaFrame&)>& use, const std::atomic<bool>& stop) {
  Pipeline& p = *pipeline_;
  const auto begin = std::chrono::steady_clock::now();
  GstSample* sample = nullptr;
  while (!sample) {
    if (stop) return false;
    sample = gst_app_sink_try_pull_sample(GST_APP_SINK(p.sink), 50 * GST_MSECOND);
    if (sample) break;
    p.check_bus();
    if (gst_app_sink_is_eos(GST_APP_SINK(p.sink))) {
      if (!p.any) throw p.failure("holds no video frame");
      return false;
    }
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(p.options.timeout_s))
      throw p.failure("no frame within " + std::to_string(p.options.timeout_s) + " s");
  }
  const std::unique_ptr<GstSample, decltype(&gst_sample_unref)> hold(sample, gst_sample_unref);
  GstVideoInfo info;
  GstVideoFrame frame;
  if (!gst_video_info_from_caps(&info, gst_sample_get_caps(sample)) ||
      !gst_video_frame_map(&frame, &info, gst_sample_get_buffer(sample), GST_MAP_READ))
    throw p.failure("a frame cannot be read");
  const uint64_t now = GST_BUFFER_PTS_IS_VALID(frame.buffer) ? GST_BUFFER_PTS(frame.buffer) : 0;
  if (!p.any) p.first_ns = now;
  p.any = true;
  LumaFrame luma;
  luma.luma = static_cast<const uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(&frame, 0));
  luma.stride = GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0);
  luma.width = GST_VIDEO_FRAME_WIDTH(&frame);
  luma.height = GST_VIDEO_FRAME_HEIGHT(&frame);
  luma.time_ns = now > p.first_ns ? now - p.first_ns : 0;
  struct Unmap {
    GstVideoFrame* f;
    ~Unmap() { gst_video_frame_unmap(f); }
  } unmap{&frame};
  use(luma);
  return true;
}

bool Capture::live() const { return pipeline_->live; }
uint64_t Capture::source_bytes() const { return pipeline_->bytes; }

}  // namespace ruyicam::edge
