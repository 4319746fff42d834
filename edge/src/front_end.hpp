// A camera's frames to the model's input, tick by tick: the part that decodes.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>

#include "bundle.hpp"
#include "capture.hpp"
#include "config.hpp"
#include "locked.hpp"
#include "records.hpp"
#include "stats.hpp"

namespace ruyicam::edge {

// Where one tick stands in time.
struct TickTime {
  uint64_t number = 0;
  Epoch epoch;
  uint16_t pace = 0;      // RecordHead::live
  uint64_t begun_ns = 0;  // CLOCK_MONOTONIC at which its frame was there
};

// What is done with the ticks: in the same process, or in the one that holds the model for several cameras.
class TickSink {
 public:
  virtual ~TickSink() = default;
  // input: int8 [3, height, width], valid during the call.
  virtual void take(const int8_t* input, const TickTime& time) = 0;
  // A tick without a frame.
  virtual void skip(const TickTime& time) = 0;
  // Latencies of a stage, by name.
  virtual void stage(const std::string& name, const nlohmann::json& figures) = 0;
};

// The head of a record that tells a stage's latencies (Latencies::summary).
RecordHead stage_record(const nlohmann::json& figures);

uint64_t clock_ns(clockid_t clock);

class FrontEnd {
 public:
  // Opens the source; fd: where a fetch process writes the stream, -1 if it is opened here. epoch: tick 0, if it has been.
  // Throws Error(kSource).
  FrontEnd(const Config& config, const Bundle& bundle, int fd, const Epoch& epoch);
  // Until the source ends or `stop` is set. The doors are shut before the first frame is looked at. Throws Error(kSource)
  // when the source fails.
  void run(TickSink& sink, const std::atomic<bool>& stop);
  // Latencies so far.
  void report(TickSink& sink) const;
  uint64_t source_bytes() const { return source_->source_bytes(); }

 private:
  void frame(const LumaFrame& frame, TickSink& sink);
  TickTime time_of(uint64_t tick) const;

  const Config& config_;
  int rate_hz_;
  Epoch epoch_;
  std::unique_ptr<Source> source_;
  kernels::Preprocessor preprocessor_;
  LockedArray<int8_t> input_;
  Latencies latencies_;
  bool isolated_ = false;
  int64_t last_ = -1;        // tick
  uint64_t joined_ns_ = 0;   // of the first frame, since tick 0
  uint64_t reported_ = 0;    // tick
};

}  // namespace ruyicam::edge
