#include "capture.hpp"

#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gst/video/video.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <vector>

#include "error.hpp"
#include "gst.hpp"
#include "pushed.hpp"

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

namespace {

// The files of a folder in the order of their names; hidden ones are not meant.
std::vector<std::string> files_in(const std::filesystem::path& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename().string().front() != '.') files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

// What begins a pipeline, and a property of its element called "source" that no pipeline text needs to quote.
struct Head {
  std::string text, property, value;
};

// Jetson's camera stack gives frames in the GPU's memory.
constexpr const char* kJetsonCamera = "nvarguscamerasrc name=source ! video/x-raw(memory:NVMM) ! nvvidconv ! video/x-raw,format=NV12";

// Threads that read and decode ahead step back for the one that works on a frame that is there; so do those they start.
GstBusSyncReply step_back(GstBus*, GstMessage* message, gpointer) {
  GstStreamStatusType type;
  if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_STREAM_STATUS) return GST_BUS_PASS;
  gst_message_parse_stream_status(message, &type, nullptr);
  if (type == GST_STREAM_STATUS_TYPE_ENTER) ::setpriority(PRIO_PROCESS, 0, 10);
  return GST_BUS_PASS;
}

bool has_element(const char* name) {
  GstElementFactory* factory = gst_element_factory_find(name);
  if (factory) gst_object_unref(factory);
  return factory != nullptr;
}

}  // namespace

struct Capture::Pipeline {
  CaptureOptions options;
  std::vector<std::string> files;  // those still to be played, the present one first
  GstElement* bin = nullptr;
  GstElement* sink = nullptr;
  bool live = false;
  bool any = false;  // a frame of the present file was given
  // Times of the present file count from first_ns and are moved to base_ns, so that files follow each other.
  uint64_t first_ns = 0, base_ns = 0, last_ns = 0, step_ns = 0, bytes = 0;

  ~Pipeline() { close(); }

  void close() {
    if (bin) {
      gst_element_set_state(bin, GST_STATE_NULL);
      gst_object_unref(bin);
    }
    if (sink) gst_object_unref(sink);
    bin = sink = nullptr;
  }

  std::string shown() const { return files.empty() ? shown_source(options.source) : files.front(); }
  Error failure(const std::string& why) const { return Error(Exit::kSource, "source " + shown() + ": " + why); }

  // Throws if an element reported an error.
  void check_bus() const {
    if (const auto why = bus_error(bin, 0)) throw failure(*why);
  }

  Head head() {
    const std::string& source = options.source;
    if (options.fd >= 0) return {"fdsrc fd=" + std::to_string(options.fd) + " ! decodebin", "", ""};
    if (starts_with(source, "v4l2:")) return {"v4l2src name=source ! decodebin", "device", source.substr(5)};
    if (starts_with(source, "csi:"))
      return has_element("nvarguscamerasrc") ? Head{kJetsonCamera, "sensor-id", source.substr(4)}
                                             : Head{"libcamerasrc name=source", "camera-name", source.substr(4)};
    if (starts_with(source, "pipeline:")) return {source.substr(9), "", ""};
    return {"filesrc name=source ! decodebin", "location", files.front()};
  }

  void open() {
    const Head first = head();
    const std::string text = first.text + " ! videoconvert ! " + kLumaCaps + " ! appsink name=luma max-buffers=4";
    GError* raw = nullptr;
    bin = gst_parse_launch(text.c_str(), &raw);
    if (raw) {
      const std::unique_ptr<GError, FreeError> error(raw);
      throw failure(std::string("not a pipeline: ") + error->message);
    }
    if (!first.property.empty()) {
      GstElement* element = gst_bin_get_by_name(GST_BIN(bin), "source");
      gst_util_set_object_arg(G_OBJECT(element), first.property.c_str(), first.value.c_str());
      gst_object_unref(element);
    }
    sink = gst_bin_get_by_name(GST_BIN(bin), "luma");
    GstBus* bus = gst_element_get_bus(bin);
    gst_bus_set_sync_handler(bus, step_back, nullptr, nullptr);
    gst_object_unref(bus);
    const GstStateChangeReturn paused = gst_element_set_state(bin, GST_STATE_PAUSED);
    // Only live elements have no preroll; a live source must not wait for us, any other must.
    live = options.fd >= 0 || is_live(options.source) || paused == GST_STATE_CHANGE_NO_PREROLL;
    const bool paced = options.realtime && !live;
    // Of a live source's frames that wait, the oldest is dropped for the newest.
    g_object_set(sink, "sync", gboolean(paced), "drop", gboolean(live), nullptr);
    if (paused == GST_STATE_CHANGE_FAILURE || gst_element_set_state(bin, GST_STATE_PLAYING) == GST_STATE_CHANGE_FAILURE) {
      check_bus();
      throw failure("cannot be opened");
    }
  }

  // False: there is none.
  bool next_file() {
    if (files.size() < 2) return false;
    files.erase(files.begin());
    base_ns = last_ns + step_ns;
    any = false;
    close();
    open();
    return true;
  }
};

Capture::Capture(CaptureOptions options) : pipeline_(std::make_unique<Pipeline>()) {
  gst_init(nullptr, nullptr);
  Pipeline& p = *pipeline_;
  p.options = std::move(options);
  const std::string& source = p.options.source;
  if (p.options.fd < 0 && !is_live(source) && !starts_with(source, "pipeline:")) {
    std::error_code problem;
    if (!std::filesystem::exists(source, problem)) throw p.failure("no such file");
    if (std::filesystem::is_directory(source, problem)) {
      auto files = files_in(source);
      if (files.empty()) throw p.failure("the folder holds no file");
      p.files = std::move(files);
    } else if (std::filesystem::is_regular_file(source, problem)) {
      p.files = {source};
    } else {
      throw p.failure("neither a file nor a folder");
    }
    for (const std::string& file : p.files) p.bytes += std::filesystem::file_size(file, problem);
  }
  p.open();
}

Capture::~Capture() = default;

std::unique_ptr<Source> open_source(const CaptureOptions& options) {
  if (const auto fd = pushed_fd(options.source)) return std::make_unique<PushedFrames>(*fd, options.timeout_s);
  return std::make_unique<Capture>(options);
}

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
      if (!p.next_file()) return false;
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
  luma.time_ns = p.base_ns + (now > p.first_ns ? now - p.first_ns : 0);
  if (luma.time_ns > p.last_ns) p.step_ns = luma.time_ns - p.last_ns;
  p.last_ns = luma.time_ns;
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
