// Latencies per stage and the figures of a run.
#pragma once
#include <chrono>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace ruyicam::edge {

// Thread-safe. Keeps the last 8,192 samples per stage.
class Latencies {
 public:
  void add(const std::string& stage, double microseconds);
  // {stage: {"count", "p50_us", "p95_us", "p99_us", "max_us"}}
  nlohmann::json summary() const;

 private:
  struct Stage {
    uint64_t count = 0;
    std::vector<double> samples;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Stage> stages_;
};

// Adds the time from its making to stop() under one name.
class Timer {
 public:
  Timer(Latencies& to, const char* stage) : to_(to), stage_(stage), begin_(std::chrono::steady_clock::now()) {}
  void stop() { to_.add(stage_, std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin_).count()); }

 private:
  Latencies& to_;
  const char* stage_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace ruyicam::edge
