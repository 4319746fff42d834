// Packets on disk until the server has acknowledged them: append-only segments of checksummed records.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace ruyicam::edge {

struct SpoolStats {
  uint64_t appended = 0, acknowledged = 0;
  uint64_t dropped = 0;  // oldest packets given up because the spool was full
  uint64_t torn = 0;     // bytes cut off at start-up because a record was incomplete or damaged
  uint64_t recovered = 0;  // packets found at start-up
};

// One thread appends, one thread sends. A record is durable when append() returns. Records that were acknowledged
// but whose segment was not yet deleted are sent again after a restart; the server knows them.
class Spool {
 public:
  // Opens or creates the folder and cuts off torn tails. Throws Error(kStorage).
  Spool(std::filesystem::path folder, uint64_t max_bytes);
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // At most 64 KiB. Throws Error(kStorage) (disk full, …); the record is then not in the spool.
  void append(const std::string& packet);
  // The next packet not yet handed out since the last rewind(), waiting up to the timeout. nullopt: none.
  std::optional<std::string> next(int timeout_ms);
  // The `count` packets handed out first are stored by the server: they are forgotten.
  void acknowledge(size_t count);
  // The connection broke: hand out everything unacknowledged again, from the oldest.
  void rewind();
  bool empty() const;        // nothing unacknowledged
  uint64_t pending() const;  // unacknowledged packets
  SpoolStats stats() const;

 private:
  struct Segment {
    uint64_t bytes = 0, records = 0, acknowledged = 0;
  };
  struct Position {
    uint64_t segment = 0, offset = 0;
  };

  std::filesystem::path path_of(uint64_t id) const;
  void recover(uint64_t id);
  void roll();
  void drop_oldest();
  void remove_finished();

  std::filesystem::path folder_;
  uint64_t max_bytes_, total_bytes_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable grown_;
  std::map<uint64_t, Segment> segments_;
  Position read_;                 // where next() goes on
  std::deque<Position> handed_;   // ends of the records handed out and not acknowledged
  Position acknowledged_;         // end of the last acknowledged record
  int out_ = -1, in_ = -1;
  uint64_t in_segment_ = 0;
  SpoolStats stats_;
};

}  // namespace ruyicam::edge
