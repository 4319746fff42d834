#include "records.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "error.hpp"

namespace ruyicam::edge {
namespace {

constexpr size_t kLine = 320;

bool write_all(int fd, const uint8_t* p, size_t size) {
  while (size > 0) {
    const ssize_t wrote = ::write(fd, p, size);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    p += wrote;
    size -= size_t(wrote);
  }
  return true;
}

bool read_all(int fd, uint8_t* p, size_t size) {
  while (size > 0) {
    const ssize_t got = ::read(fd, p, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    p += got;
    size -= size_t(got);
  }
  return true;
}

}  // namespace

size_t payload_size(size_t packed_bytes) { return std::max(packed_bytes, kLine); }

bool RecordPipe::write(const RecordHead& head, const uint8_t* payload, size_t size) {
  std::vector<uint8_t> bytes(sizeof head + payload_, 0);
  std::memcpy(bytes.data(), &head, sizeof head);
  if (size > 0) std::memcpy(bytes.data() + sizeof head, payload, std::min(size, payload_));
  return write_all(out_, bytes.data(), bytes.size());
}

std::optional<Record> RecordPipe::read(int timeout_ms) {
  if (timeout_ms >= 0) {
    pollfd waiting{in_, POLLIN, 0};
    if (::poll(&waiting, 1, timeout_ms) <= 0) return std::nullopt;
  }
  Record record;
  record.payload.resize(payload_);
  if (!read_all(in_, reinterpret_cast<uint8_t*>(&record.head), sizeof record.head) ||
      !read_all(in_, record.payload.data(), payload_)) {
    ended_ = true;
    return std::nullopt;
  }
  return record;
}

bool RecordPipe::answer(bool yes) {
  const uint8_t byte = yes;
  return write_all(out_, &byte, 1);
}

bool RecordPipe::ask(const RecordHead& head) {
  uint8_t byte = 0;
  if (!write(head) || !read_all(in_, &byte, 1)) throw Error(Exit::kInternal, "the keeper of the ledger is gone");
  return byte != 0;
}

}  // namespace ruyicam::edge
