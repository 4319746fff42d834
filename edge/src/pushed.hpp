// Frames that another program hands over on a descriptor: `source` "frames:FD" (the C API, edge/include/ruyicam/edge.h).
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "capture.hpp"

namespace ruyicam::edge {

// The descriptor of such a source; nullopt for any other. Throws Error(kSource) for one that is not a number of an open pipe.
std::optional<int> pushed_fd(const std::string& source);

class PushedFrames : public Source {
 public:
  PushedFrames(int fd, int timeout_s) : fd_(fd), timeout_s_(timeout_s) {}
  // Throws Error(kSource) for what is no frame.
  bool next(const std::function<void(const LumaFrame&)>& use, const std::atomic<bool>& stop) override;
  bool live() const override { return true; }
  uint64_t source_bytes() const override { return 0; }

 private:
  // False: the other side has closed it, between two frames if `may_end`, or `stop` was set.
  bool read(void* into, size_t size, bool may_end, const std::atomic<bool>& stop);

  int fd_, timeout_s_;
  std::optional<uint64_t> first_ns_;
  std::vector<uint8_t> luma_;
};

}  // namespace ruyicam::edge
