// The one way out of the process that sees frames: records of one size on a pipe, answered by single bytes on another.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ruyicam::edge {

enum class RecordType : uint32_t {
  kTokenWanted = 1,    // may this tick's token leave? answered by a byte
  kFeaturesWanted = 2, // may this tick's features leave? answered by a byte
  kPacket = 3,         // one tick, features packed in the payload: values are microseconds of work and CLOCK_MONOTONIC, ns
  kStage = 4,          // latencies of one stage, now and then: values are count, p50, p95, p99 and maximum in microseconds
  kFailure = 5,        // the process gives up: `kind` is its exit code, the payload a line of text
  kDone = 6,           // the source ended: values are bytes of the source and frames read
  kNotice = 7,         // a line for the log
  kGone = 8,           // by the launcher: the process has ended, with exit code `kind` or by signal `token`, the `number`th of its
                       // camera; may come again. The payload is what the fetch process had to say
  kInput = 9,          // to the process with the model: one tick, the payload being the model's input; time_us is of tick 0,
                       // values are CLOCK_MONOTONIC (ns) of its frame
  kSkipped = 10,       // the same of a tick without a frame
};

enum Kind : uint32_t { kWithheldByGate = 0, kFeatures = 1, kWithheldByLedger = 2 };

// Tick 0 of this boot, which later processes count on from; zeros: the next process's first frame.
struct Epoch {
  uint64_t first_ns = 0;  // CLOCK_MONOTONIC
  uint64_t start_us = 0;  // Unix time
};

struct RecordHead {
  RecordType type = RecordType::kPacket;
  uint32_t kind = 0;
  uint64_t number = 0;   // tick
  uint64_t time_us = 0;  // Unix time of the tick
  uint64_t first_ns = 0; // CLOCK_MONOTONIC of tick 0
  uint32_t token = 0;
  uint16_t last = 0;
  uint16_t live = 0;  // the source gives frames at its own pace: 1 a file played so, 2 a camera
  double values[5] = {};
};

struct Record {
  RecordHead head;
  std::vector<uint8_t> payload;  // of the pipe's payload size
};

// Not thread-safe. Reading and writing go on after signals; a signal handler's flag is looked at between records.
class RecordPipe {
 public:
  RecordPipe(int read_fd, int write_fd, size_t payload) : in_(read_fd), out_(write_fd), payload_(payload) {}
  // False: the other side is gone.
  bool write(const RecordHead& head, const uint8_t* payload = nullptr, size_t size = 0);
  bool write_text(const RecordHead& head, const std::string& line) {
    return write(head, reinterpret_cast<const uint8_t*>(line.data()), line.size());
  }
  // nullopt: the other side is gone, or (with `timeout_ms` >= 0) nothing came in time; see ended().
  std::optional<Record> read(int timeout_ms);
  bool ended() const { return ended_; }
  bool answer(bool yes);
  // Throws Error(kInternal) if the other side is gone.
  bool ask(const RecordHead& head);

 private:
  int in_, out_;
  size_t payload_;
  bool ended_ = false;
};

// Bytes that a record's payload has beside features of that packed size: room for a line of text.
size_t payload_size(size_t packed_bytes);

}  // namespace ruyicam::edge
