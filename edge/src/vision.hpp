// What is seen, to packed features: the model, the mapping and the gate of one camera. All that leaves are records on one pipe.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "encoder.hpp"
#include "front_end.hpp"
#include "gate.hpp"
#include "locked.hpp"
#include "records.hpp"
#include "stats.hpp"

namespace ruyicam::edge {

// One run of a source. Its calls throw Error(kInternal) when the keeper of the ledger is gone, Error(kBundle) if the graph
// cannot be run.
class Vision : public TickSink {
 public:
  Vision(const Bundle& bundle, const Model& model, RecordPipe& pipe);
  void take(const int8_t* input, const TickTime& time) override;
  void skip(const TickTime& time) override;
  void stage(const std::string& name, const nlohmann::json& figures) override;
  // What was seen last goes out. last: the source has ended.
  void finish(bool last);

 private:
  void report();
  bool ask(RecordType what, const Tick& tick, uint32_t token);
  uint64_t time_of(uint64_t number) const { return time_.epoch.start_us + number * 1000000u / uint64_t(bundle_.rate_hz); }
  uint64_t block_of(uint64_t number) const { return number / uint64_t(bundle_.block_ticks); }
  void begin(const TickTime& time);
  void push(Tick tick);
  void push_block(Tick tick);
  void pass(Decision decision);
  void emit(Decision decision, bool last);

  const Bundle& bundle_;
  RecordPipe& pipe_;
  kernels::Mapping mapping_, release_;
  Encoder encoder_;
  Gate gate_;
  LockedArray<uint8_t> key_;
  std::vector<uint8_t> packed_;
  Latencies latencies_;
  TickTime time_;  // of the present tick
  bool begun_ = false;
  uint64_t releases_ = 0, block_ = 0, reported_ = 0;
  uint32_t worst_ = 0;
  std::optional<Decision> held_back_;
};

}  // namespace ruyicam::edge
