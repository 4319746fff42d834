#include "vision.hpp"

#include <sodium.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "error.hpp"

namespace ruyicam::edge {
namespace {

constexpr uint64_t kReportEvery_s = 10;

double since_us(uint64_t begin_ns) { return double(clock_ns(CLOCK_MONOTONIC) - begin_ns) / 1000; }

}  // namespace

Vision::Vision(const Bundle& bundle, const Model& model, RecordPipe& pipe)
    : bundle_(bundle), pipe_(pipe), mapping_(bundle.mapping), release_(bundle.release), encoder_(model, bundle),
      gate_(bundle.around_ticks, bundle.heartbeat_ticks), key_(32) {
  randombytes_buf(key_.data(), key_.size());
}

void Vision::finish(bool last) {
  while (auto decision = gate_.flush()) pass(std::move(*decision));
  if (held_back_) emit(std::move(*held_back_), last);
  held_back_.reset();
  report();
}

void Vision::stage(const std::string& name, const nlohmann::json& figures) {
  pipe_.write_text(stage_record(figures), name);
}

void Vision::report() {
  const auto all = latencies_.summary();
  for (const auto& [name, figures] : all.items()) stage(name, figures);
}

bool Vision::ask(RecordType what, const Tick& tick, uint32_t token) {
  return pipe_.ask({.type = what, .number = tick.number, .time_us = tick.captured_at_us, .token = token, .live = time_.pace});
}

void Vision::begin(const TickTime& time) {
  time_ = time;
  // Of the block that it is now nothing was seen before, so it is not over.
  if (!begun_) block_ = block_of(time.number);
  begun_ = true;
}

// It looked like nothing, and nothing of it leaves.
void Vision::skip(const TickTime& time) {
  begin(time);
  Tick tick;
  tick.number = time.number;
  tick.captured_at_us = time_of(time.number);
  tick.seen = false;
  push(std::move(tick));
}

void Vision::take(const int8_t* input, const TickTime& time) {
  begin(time);
  Timer encode(latencies_, "encoder");
  encoder_.run(input);
  encode.stop();
  Timer map(latencies_, "mapping");
  Tick tick;
  tick.number = time.number;
  // The tick's time and not the frame's: a camera may give frames as the picture moves.
  tick.captured_at_us = time_of(time.number);
  std::vector<int16_t> clipped(mapping_.features());
  mapping_.project(encoder_.tokens(), bundle_.mapping.in_dim, clipped.data(), kernels::Backend::kSimd);
  if (bundle_.certified() && block_of(time.number) > block_) {
    tick.features.resize(release_.features());
    release_.project(encoder_.tokens(), bundle_.release.in_dim, tick.features.data(), kernels::Backend::kSimd);
  }
  map.stop();
  tick.token = behaviour_token(encoder_.probabilities(), bundle_.labels.size(), bundle_.look_threshold);
  encoder_.remember(clipped.data());
  if (!bundle_.certified())
    tick.features = std::move(clipped);
  else
    sodium_memzero(clipped.data(), clipped.size() * sizeof(int16_t));
  push(std::move(tick));
  latencies_.add("tick", since_us(time.begun_ns));
  if (time.number < reported_ + kReportEvery_s * uint64_t(bundle_.rate_hz)) return;
  reported_ = time.number;
  report();
}

// The tick's token is paid for here, and the gate decides.
void Vision::push(Tick tick) {
  if (bundle_.certified()) return push_block(std::move(tick));
  if (tick.seen) {
    // The gate must not act on a token that was not paid for: its decisions are seen outside.
    tick.paid = ask(RecordType::kTokenWanted, tick, tick.token);
    if (!tick.paid) tick.token = 0;
  }
  tick.work_us = since_us(time_.begun_ns);
  if (auto decision = gate_.push(std::move(tick))) pass(std::move(*decision));
}

// Under a certified profile one tick of every block speaks for all of it: its first one after the block's end.
void Vision::push_block(Tick tick) {
  worst_ = std::max(worst_, std::min(tick.token, uint32_t(bundle_.alphabet.size() - 1)));
  tick.token = 0;
  const uint64_t block = block_of(tick.number);
  const bool due = tick.seen && block > block_;
  if (due) {
    block_ = block;
    // Charged for the end of the block, so that frames that come early or late do not move the budget's clock.
    tick.captured_at_us = time_of(block * uint64_t(bundle_.block_ticks));
    tick.paid = ask(RecordType::kTokenWanted, tick, worst_);
    if (tick.paid) tick.token = worst_;
    worst_ = 0;
  }
  tick.work_us = since_us(time_.begun_ns);
  pass({std::move(tick), due});
}

// One tick is held back, so that the last one of a source can say so.
void Vision::pass(Decision decision) {
  if (held_back_) emit(std::move(*held_back_), false);
  held_back_ = std::move(decision);
}

void Vision::emit(Decision decision, bool last) {
  const uint64_t begun = clock_ns(CLOCK_MONOTONIC);
  Timer release(latencies_, "release");
  Tick& tick = decision.tick;
  RecordHead head{.kind = tick.paid ? kWithheldByGate : kWithheldByLedger, .number = tick.number, .time_us = tick.captured_at_us,
                  .first_ns = time_.epoch.first_ns, .token = tick.token, .last = uint16_t(last),
                  .live = time_.pace};
  if (tick.seen && tick.paid && decision.open)
    head.kind = ask(RecordType::kFeaturesWanted, tick, 0) ? kFeatures : kWithheldByLedger;
  packed_.assign(release_.packed_bytes(), 0);
  if (head.kind == kFeatures) release_.release(tick.features.data(), key_.data(), releases_++, packed_.data(), kernels::Backend::kSimd);
  sodium_memzero(tick.features.data(), tick.features.size() * sizeof(int16_t));
  release.stop();
  head.values[0] = tick.work_us + since_us(begun);
  head.values[1] = double(clock_ns(CLOCK_MONOTONIC));
  if (!pipe_.write(head, packed_.data(), packed_.size())) throw Error(Exit::kInternal, "the keeper of the ledger is gone");
}

}  // namespace ruyicam::edge
