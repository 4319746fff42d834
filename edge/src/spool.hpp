// Packets on disk until the server has acknowledged them: append-only segments of checksummed records.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace ruyicam::edge {

struct SpoolStats {
  uint64_t appended = 0, acknowledged = 0;
  uint64_t dropped = 0;  // oldest packets given up because the spool was full, or they were too old
  uint64_t torn = 0;     // bytes cut off at start-up because a record was incomplete
  uint64_t damaged = 0;  // records passed over because their checksum does not hold
  uint64_t recovered = 0;  // packets found at start-up
};

// One thread appends, one thread sends. A record is durable when append() returns. Records that were acknowledged
// but whose segment was not yet deleted are sent again after a restart; the server knows them.
class Spool {
 public:
  // Opens or creates the folder and cuts off torn tails. max_age: how long a packet is kept, by a clock that nobody can set;
  // 0: for ever; a restart begins anew. essential: which packets go last when room is wanted. Throws Error(kStorage).
  Spool(std::filesystem::path folder, uint64_t max_bytes, std::chrono::seconds max_age = {},
        std::function<bool(const std::string&)> essential = [](const std::string&) { return true; });
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
  using Clock = std::chrono::steady_clock;
  struct Segment {
    uint64_t bytes = 0, records = 0, acknowledged = 0;
    bool thinned = false;  // all of it is essential
    Clock::time_point newest = Clock::now();
  };
  struct Position {
    uint64_t segment = 0, offset = 0;
  };

  std::filesystem::path path_of(uint64_t id) const;
  void recover(uint64_t id);
  void roll();
  void make_room(uint64_t need);
  bool thin_oldest();
  void forget(uint64_t id);
  void drop_oldest();
  void drop(std::map<uint64_t, Segment>::iterator it);
  void remove_finished();

  std::filesystem::path folder_;
  uint64_t max_bytes_, total_bytes_ = 0;
  std::chrono::seconds max_age_;
  std::function<bool(const std::string&)> essential_;
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
