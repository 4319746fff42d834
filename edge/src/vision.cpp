#include "vision.hpp"

#include <sodium.h>
#include <time.h>

#include "capture.hpp"
#include "encoder.hpp"
#include "gate.hpp"
#include "isolation.hpp"
#include "locked.hpp"
#include "stats.hpp"

namespace ruyicam::edge {
namespace {

// A camera that was silent for longer than this has stopped; its packets do not go on without it.
constexpr uint64_t kLongestGap_s = 10;
constexpr uint64_t kReportEvery_s = 10;

uint64_t clock_ns(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return uint64_t(t.tv_sec) * 1000000000u + uint64_t(t.tv_nsec);
}

double since_us(uint64_t begin_ns) { return double(clock_ns(CLOCK_MONOTONIC) - begin_ns) / 1000; }

class Vision {
 public:
  Vision(const Config& config, const Bundle& bundle, RecordPipe& pipe, int source_fd, const Epoch& epoch, const std::atomic<bool>& stop)
      : config_(config), bundle_(bundle), pipe_(pipe), epoch_(epoch), stop_(stop),
        capture_(open_source({config.source, config.realtime, int(config.source_timeout_s), source_fd})), mapping_(bundle.mapping),
        release_(bundle.release), preprocessor_(bundle.preprocess), encoder_(bundle, encoder_options(config)),
        gate_(bundle.around_ticks, bundle.heartbeat_ticks), input_(preprocessor_.output_size()), key_(32) {
    randombytes_buf(key_.data(), key_.size());
  }

  void run() {
    try {
      capture_all();
    } catch (const Error& error) {
      if (error.code() != Exit::kSource) throw;
      // What was seen before the source broke still goes out.
      finish();
      throw;
    }
    finish();
    RecordHead done{.type = RecordType::kDone};
    done.values[0] = double(capture_->source_bytes());
    pipe_.write(done);
  }

 private:
  void capture_all() {
    int64_t last = -1;
    bool isolated = false;
    while (!stop_) {
      Timer wait(latencies_, "capture");
      const bool more = capture_->next(
          [&](const LumaFrame& frame) {
            wait.stop();
            if (!isolated) {
              // The source has opened all that it needs.
              isolate_for_good();
              isolated = true;
              const uint64_t now = clock_ns(CLOCK_MONOTONIC);
              if (epoch_.first_ns == 0) epoch_ = {now, clock_ns(CLOCK_REALTIME) / 1000};
              joined_ns_ = now - epoch_.first_ns;
              // Of the block that it is now nothing was seen before, so it is not over.
              block_ = block_of(joined_ns_ * uint64_t(bundle_.rate_hz) / 1000000000u);
            }
            // Of the frames of one tick the first counts; training does the same.
            const auto tick = int64_t((joined_ns_ + frame.time_ns) * uint64_t(bundle_.rate_hz) / 1000000000u);
            if (tick <= last) return;
            // Ticks for which the camera gave no frame have their packets too, or gaps would tell about the picture.
            if (last >= 0 && uint64_t(tick - last) <= kLongestGap_s * uint64_t(bundle_.rate_hz))
              for (int64_t missed = last + 1; missed < tick; ++missed) skip(uint64_t(missed));
            last = tick;
            take(frame, uint64_t(tick));
            if (uint64_t(tick) >= reported_ + kReportEvery_s * uint64_t(bundle_.rate_hz)) {
              reported_ = uint64_t(tick);
              report();
            }
          },
          stop_);
      if (!more) return;
    }
  }

  void finish() {
    while (auto decision = gate_.flush()) pass(std::move(*decision));
    if (held_back_) emit(std::move(*held_back_), !stop_);
    held_back_.reset();
    report();
  }

  void report() {
    const auto all = latencies_.summary();
    for (const auto& [name, s] : all.items()) {
      RecordHead head{.type = RecordType::kStage,
                      .values = {s["count"], s["p50_us"], s["p95_us"], s["p99_us"], s["max_us"]}};
      pipe_.write_text(head, name);
    }
  }

  uint16_t pace() const { return capture_->live() ? 2 : config_.realtime ? 1 : 0; }

  bool ask(RecordType what, const Tick& tick, uint32_t token) {
    return pipe_.ask({.type = what, .number = tick.number, .time_us = tick.captured_at_us, .token = token, .live = pace()});
  }

  uint64_t time_of(uint64_t number) const { return epoch_.start_us + number * 1000000u / uint64_t(bundle_.rate_hz); }

  // A tick without a frame: it looked like nothing, and nothing of it leaves.
  void skip(uint64_t number) {
    begun_ns_ = clock_ns(CLOCK_MONOTONIC);
    Tick tick;
    tick.number = number;
    tick.captured_at_us = time_of(number);
    tick.seen = false;
    push(std::move(tick));
  }

  uint64_t block_of(uint64_t number) const { return number / uint64_t(bundle_.block_ticks); }

  void take(const LumaFrame& frame, uint64_t number) {
    begun_ns_ = clock_ns(CLOCK_MONOTONIC);
    Timer total(latencies_, "tick");
    Timer preprocess(latencies_, "preprocess");
    try {
      preprocessor_.process(frame.luma, frame.width, frame.height, frame.stride, input_.data(), kernels::Backend::kSimd);
    } catch (const std::invalid_argument& error) {
      throw Error(Exit::kSource, "source " + shown_source(config_.source) + ": " + error.what());
    }
    preprocess.stop();
    Timer encode(latencies_, "encoder");
    encoder_.run(input_.data());
    encode.stop();
    Timer map(latencies_, "mapping");
    Tick tick;
    tick.number = number;
    // The tick's time and not the frame's: a camera may give frames as the picture moves.
    tick.captured_at_us = time_of(number);
    std::vector<int16_t> clipped(mapping_.features());
    mapping_.project(encoder_.tokens(), bundle_.mapping.in_dim, clipped.data(), kernels::Backend::kSimd);
    if (bundle_.certified() && block_of(number) > block_) {
      tick.features.resize(release_.features());
      release_.project(encoder_.tokens(), bundle_.release.in_dim, tick.features.data(), kernels::Backend::kSimd);
    }
    map.stop();
    tick.token = behaviour_token(encoder_.probabilities(), bundle_.labels.size(), bundle_.look_threshold);
    encoder_.remember(clipped.data());
    if (!bundle_.certified()) tick.features = std::move(clipped);
    else sodium_memzero(clipped.data(), clipped.size() * sizeof(int16_t));
    push(std::move(tick));
    total.stop();
  }

  // The tick's token is paid for here, and the gate decides.
  void push(Tick tick) {
    if (bundle_.certified()) return push_block(std::move(tick));
    if (tick.seen) {
      // The gate must not act on a token that was not paid for: its decisions are seen outside.
      tick.paid = ask(RecordType::kTokenWanted, tick, tick.token);
      if (!tick.paid) tick.token = 0;
    }
    tick.work_us = since_us(begun_ns_);
    if (auto decision = gate_.push(std::move(tick))) pass(std::move(*decision));
  }

  // Under a certified profile one tick of every block speaks for all of it: its first one after the block's end.
  void push_block(Tick tick) {
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
    tick.work_us = since_us(begun_ns_);
    pass({std::move(tick), due});
  }

  // One tick is held back, so that the last one of a source can say so.
  void pass(Decision decision) {
    if (held_back_) emit(std::move(*held_back_), false);
    held_back_ = std::move(decision);
  }

  void emit(Decision decision, bool last) {
    const uint64_t begun = clock_ns(CLOCK_MONOTONIC);
    Timer release(latencies_, "release");
    Tick& tick = decision.tick;
    RecordHead head{.kind = tick.paid ? kWithheldByGate : kWithheldByLedger, .number = tick.number, .time_us = tick.captured_at_us,
                    .first_ns = epoch_.first_ns, .token = tick.token, .last = uint16_t(last),
                    .live = pace()};
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

  const Config& config_;
  const Bundle& bundle_;
  RecordPipe& pipe_;
  Epoch epoch_;
  const std::atomic<bool>& stop_;
  std::unique_ptr<Source> capture_;
  kernels::Mapping mapping_, release_;
  kernels::Preprocessor preprocessor_;
  Encoder encoder_;
  Gate gate_;
  LockedArray<int8_t> input_;
  LockedArray<uint8_t> key_;
  std::vector<uint8_t> packed_;
  Latencies latencies_;
  uint64_t joined_ns_ = 0;  // of the first frame, since tick 0
  uint64_t releases_ = 0, block_ = 0, begun_ns_ = 0, reported_ = 0;
  uint32_t worst_ = 0;
  std::optional<Decision> held_back_;
};

}  // namespace

Exit see(const Config& config, const Bundle& bundle, RecordPipe& pipe, int source_fd, const Epoch& epoch, const std::atomic<bool>& stop) {
  const auto fail = [&](Exit code, const std::string& why) {
    pipe.write_text({.type = RecordType::kFailure, .kind = uint32_t(code)}, why);
    return code;
  };
  try {
    Vision(config, bundle, pipe, source_fd, epoch, stop).run();
    return Exit::kOk;
  } catch (const Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::exception& error) {
    return fail(Exit::kInternal, std::string("internal error: ") + error.what());
  }
}

}  // namespace ruyicam::edge
