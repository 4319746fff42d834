#include "pushed.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sodium.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>

#include "error.hpp"
#include "frame_header.hpp"
#include "gst.hpp"

namespace ruyicam::edge {

std::optional<int> pushed_fd(const std::string& source) {
  constexpr const char* kScheme = "frames:";
  if (!starts_with(source, kScheme)) return std::nullopt;
  const char *begin = source.data() + 7, *end = source.data() + source.size();
  int fd = -1;
  const auto [rest, problem] = std::from_chars(begin, end, fd);
  if (problem != std::errc() || rest != end || fd < 3 || ::fcntl(fd, F_GETFD) < 0)
    throw Error(Exit::kSource, "source " + source + ": is not frames:FD with an open descriptor above 2");
  return fd;
}

bool PushedFrames::read(void* into, size_t size, bool may_end, const std::atomic<bool>& stop) {
  auto* at = static_cast<uint8_t*>(into);
  auto begin = std::chrono::steady_clock::now();
  for (size_t done = 0; done < size;) {
    if (stop) return false;
    pollfd waiting{fd_, POLLIN, 0};
    if (::poll(&waiting, 1, 50) > 0) {
      const ssize_t got = ::read(fd_, at + done, size - done);
      if (got < 0 && errno == EINTR) continue;
      if (got == 0 && done == 0 && may_end) return false;
      if (got <= 0) throw Error(Exit::kSource, "source frames: broke off within a frame");
      done += size_t(got);
      begin = std::chrono::steady_clock::now();
    } else if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(timeout_s_)) {
      throw Error(Exit::kSource, "source frames: no frame within " + std::to_string(timeout_s_) + " s");
    }
  }
  return true;
}

bool PushedFrames::next(const std::function<void(const LumaFrame&)>& use, const std::atomic<bool>& stop) {
  FrameHeader head;
  if (!read(&head, sizeof head, true, stop)) return false;
  const auto side = [](uint32_t n) { return n >= FrameHeader::kLeastSide && n <= FrameHeader::kMostSide; };
  if (head.magic != FrameHeader::kMagic || !side(head.width) || !side(head.height))
    throw Error(Exit::kSource, "source frames: what came is no frame (edge.h says how to hand them over)");
  luma_.resize(size_t(head.width) * head.height);
  // No frame outlives its use, whatever becomes of it.
  struct Wipe {
    std::vector<uint8_t>& luma;
    ~Wipe() { sodium_memzero(luma.data(), luma.size()); }
  } wipe{luma_};
  if (!read(luma_.data(), luma_.size(), false, stop)) return false;
  if (!first_ns_) first_ns_ = head.time_ns;
  use({luma_.data(), int(head.width), int(head.height), ptrdiff_t(head.width), head.time_ns > *first_ns_ ? head.time_ns - *first_ns_ : 0});
  return true;
}

}  // namespace ruyicam::edge
