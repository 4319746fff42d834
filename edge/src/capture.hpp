// Frames from files, RTSP, V4L2, CSI or any GStreamer pipeline; only their luma plane is ever read.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace ruyicam::edge {

struct LumaFrame {
  const uint8_t* luma = nullptr;
  int width = 0, height = 0;
  ptrdiff_t stride = 0;
  uint64_t time_ns = 0;  // since the first frame
};

struct CaptureOptions {
  std::string source;        // file, folder, rtsp://…, v4l2:/dev/video0, csi:0, pipeline:GSTREAMER ELEMENTS or frames:FD
  bool realtime = false;     // play a file at its own pace instead of as fast as it can be read
  int timeout_s = 10;        // longest wait for a frame of a live source
  int fd = -1;               // read the stream, as fetch() writes it, from here instead of opening the source
};

// Whether a source comes over the network, so that a process of its own must fetch it.
bool is_remote(const std::string& source);
// Whether a source is a camera by its name; a pipeline may be one too, which shows when it runs.
bool is_live(const std::string& source);
// Fetches the video of a remote source, still compressed, into `fd` until it ends or the reader goes. Returns 0, or 1
// after writing one line why to `error_fd`.
int fetch(const std::string& source, int timeout_s, int fd, int error_fd);

// The source as it may be printed: without the user and password of a URL.
std::string shown_source(const std::string& source);

// Where frames come from.
class Source {
 public:
  virtual ~Source() = default;
  // Calls `use` with the next frame, whose memory is valid during the call only. False: the source ended or `stop`
  // was set. Throws Error(kSource) for what cannot be decoded, or a live source that gives no frame in time.
  virtual bool next(const std::function<void(const LumaFrame&)>& use, const std::atomic<bool>& stop) = 0;
  virtual bool live() const = 0;
  // Size of the source file in bytes; 0 for anything but a file.
  virtual uint64_t source_bytes() const = 0;
};

// Throws Error(kSource) with one line for what cannot be opened.
std::unique_ptr<Source> open_source(const CaptureOptions& options);

// By GStreamer.
class Capture : public Source {
 public:
  explicit Capture(CaptureOptions options);
  ~Capture() override;
  bool next(const std::function<void(const LumaFrame&)>& use, const std::atomic<bool>& stop) override;
  bool live() const override;
  uint64_t source_bytes() const override;

 private:
  struct Pipeline;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace ruyicam::edge
