#include "front_end.hpp"

#include <sodium.h>
#include <time.h>

#include <stdexcept>

#include "error.hpp"
#include "isolation.hpp"

namespace ruyicam::edge {
namespace {

// A camera that was silent for longer than this has stopped; its packets do not go on without it.
constexpr uint64_t kLongestGap_s = 10;
constexpr uint64_t kReportEvery_s = 10;

}  // namespace

uint64_t clock_ns(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return uint64_t(t.tv_sec) * 1000000000u + uint64_t(t.tv_nsec);
}

RecordHead stage_record(const nlohmann::json& f) {
  return {.type = RecordType::kStage, .values = {f["count"], f["p50_us"], f["p95_us"], f["p99_us"], f["max_us"]}};
}

FrontEnd::FrontEnd(const Config& config, const Bundle& bundle, int fd, const Epoch& epoch)
    : config_(config), rate_hz_(bundle.rate_hz), epoch_(epoch),
      source_(open_source({config.source, config.realtime, int(config.source_timeout_s), fd})), preprocessor_(bundle.preprocess),
      input_(preprocessor_.output_size()) {}

void FrontEnd::run(TickSink& sink, const std::atomic<bool>& stop) {
  while (!stop) {
    Timer wait(latencies_, "capture");
    const bool more = source_->next(
        [&](const LumaFrame& luma) {
          wait.stop();
          frame(luma, sink);
        },
        stop);
    if (!more) return;
  }
}

void FrontEnd::report(TickSink& sink) const {
  const auto all = latencies_.summary();
  for (const auto& [name, figures] : all.items()) sink.stage(name, figures);
}

TickTime FrontEnd::time_of(uint64_t tick) const {
  return {tick, epoch_, uint16_t(source_->live() ? 2 : config_.realtime ? 1 : 0), clock_ns(CLOCK_MONOTONIC)};
}

void FrontEnd::frame(const LumaFrame& luma, TickSink& sink) {
  if (!isolated_) {
    // The source has opened all that it needs.
    isolate_for_good();
    isolated_ = true;
    const uint64_t now = clock_ns(CLOCK_MONOTONIC);
    if (epoch_.first_ns == 0) epoch_ = {now, clock_ns(CLOCK_REALTIME) / 1000};
    joined_ns_ = now - epoch_.first_ns;
  }
  // Of the frames of one tick the first counts; training does the same.
  const auto rate = uint64_t(rate_hz_);
  const auto tick = int64_t((joined_ns_ + luma.time_ns) * rate / 1000000000u);
  if (tick <= last_) return;
  // Ticks for which the camera gave no frame have their packets too, or gaps would tell about the picture.
  if (last_ >= 0 && uint64_t(tick - last_) <= kLongestGap_s * rate)
    for (int64_t missed = last_ + 1; missed < tick; ++missed) sink.skip(time_of(uint64_t(missed)));
  last_ = tick;
  const TickTime time = time_of(uint64_t(tick));
  Timer preprocess(latencies_, "preprocess");
  try {
    preprocessor_.process(luma.luma, luma.width, luma.height, luma.stride, input_.data(), kernels::Backend::kSimd);
  } catch (const std::invalid_argument& error) {
    throw Error(Exit::kSource, "source " + shown_source(config_.source) + ": " + error.what());
  }
  preprocess.stop();
  sink.take(input_.data(), time);
  sodium_memzero(input_.data(), input_.size());
  if (time.number < reported_ + kReportEvery_s * rate) return;
  reported_ = time.number;
  report(sink);
}

}  // namespace ruyicam::edge
