// The packet clock of a live source: one packet per tick at a fixed time, whatever is seen and however long it took.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "records.hpp"

namespace ruyicam::edge {

// Tick n leaves at `first + n / rate + hold`. One that is not there by then leaves as a filler that says nothing, and its
// own packet, should it come, is dropped.
class Pacer {
 public:
  // `send` is called by the pacer's thread, in order of ticks; what it throws ends the clock, see problem().
  Pacer(int rate_hz, uint64_t hold_ms, size_t payload, std::function<void(const Record&)> send);
  ~Pacer();
  void put(Record record);
  // No more will come: what is held leaves at its time, with fillers up to the last of it. Waits.
  void finish();
  uint64_t late() const { return late_; }
  uint64_t filled() const { return filled_; }
  std::string problem() const;

 private:
  void run();

  uint64_t period_ns_, hold_ns_;
  size_t payload_;
  std::function<void(const Record&)> send_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, Record> held_;
  bool begun_ = false, ending_ = false, stop_ = false;
  uint64_t first_ns_ = 0, first_us_ = 0, next_ = 0;
  std::atomic<uint64_t> late_{0}, filled_{0};
  std::string problem_;
  std::thread thread_;
};

}  // namespace ruyicam::edge
