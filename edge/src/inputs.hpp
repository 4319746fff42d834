// From a camera's process to the one that holds the model for several cameras: the model's input of every tick, and records.
// Messages of a socket pair: each is whole or not there, also when its writer is killed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "locked.hpp"
#include "records.hpp"

namespace ruyicam::edge {

// Both ends, for the process that starts the others: an end outlives those that use it.
struct InputPair {
  // size: of the model's input, bytes. Throws Error(kInternal) if there is no descriptor left, Error(kBundle) for an input
  // that is larger than a message can be.
  explicit InputPair(size_t size);
  int read = -1, write = -1;
};

class InputWriter {
 public:
  explicit InputWriter(int fd) : fd_(fd) {}
  // Waits until there is room: what is late is dropped at the source. False: the other side is gone.
  bool write(const RecordHead& head, const void* bytes = nullptr, size_t size = 0);
  bool write_text(const RecordHead& head, const std::string& line) { return write(head, line.data(), line.size()); }
  // True: written. Does not wait; not for a process whose doors are shut.
  bool try_write(const RecordHead& head, const std::string& line);

 private:
  int fd_;
};

class InputReader {
 public:
  // size: of the model's input.
  InputReader(int fd, size_t size);
  // Waits for the next message and calls `use` with it; its bytes are wiped after the call. False: the other side is gone.
  bool read(const std::function<void(const RecordHead& head, const uint8_t* bytes, size_t size)>& use);

 private:
  int fd_;
  LockedArray<uint8_t> message_;
};

// What lies unread is given up. For a process whose doors are open.
void drain(int fd);

}  // namespace ruyicam::edge
