#include "runtime.hpp"

#include <sodium.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <filesystem>

#include "capture.hpp"
#include "credentials.hpp"
#include "encoder.hpp"
#include "files.hpp"
#include "gate.hpp"
#include "ledger.hpp"
#include "ruyicam/v1/uplink.pb.h"
#include "spool.hpp"
#include "stats.hpp"
#include "uplink.hpp"

namespace ruyicam::edge {
namespace {

enum Kind : uint32_t { kWithheldByGate = 0, kFeatures = 1, kWithheldByLedger = 2 };

// Memory for pictures and for the key: never swapped, wiped when it goes.
template <class T>
class LockedArray {
 public:
  explicit LockedArray(size_t n) : size_(n), data_(static_cast<T*>(sodium_allocarray(n, sizeof(T)))) {
    if (!data_) throw Error(Exit::kInternal, "no lockable memory left (see ulimit -l)");
  }
  ~LockedArray() { sodium_free(data_); }
  LockedArray(const LockedArray&) = delete;
  LockedArray& operator=(const LockedArray&) = delete;
  T* data() { return data_; }
  size_t size() const { return size_; }

 private:
  size_t size_;
  T* data_;
};

double lower(double ceiling, double wanted) { return wanted > 0 ? std::min(ceiling, wanted) : ceiling; }

uint64_t unix_time_us() {
  return uint64_t(std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

class Run {
 public:
  Run(const Config& config, const std::atomic<bool>& stop)
      : config_(config), stop_(stop), bundle_(load_bundle(config.bundle, config.public_key)),
        credentials_(load_credentials(config.ca, config.cert, config.key, config.camera_id)),
        capture_({config.source, config.realtime, int(config.source_timeout_s)}), mapping_(bundle_.mapping),
        preprocessor_(bundle_.preprocess), encoder_(bundle_, int(config.threads)),
        gate_(bundle_.around_ticks, bundle_.heartbeat_ticks), input_(preprocessor_.output_size()), key_(32),
        spool_(prepare(config.state_dir) / "spool", uint64_t(config.spool_max_bytes)),
        ledger_(std::filesystem::path(config.state_dir) / "ledger.json", config.camera_id,
                {lower(bundle_.bits_per_second, config.bits_per_second), lower(bundle_.bits_per_day, config.bits_per_day)}),
        uplink_(config.server, credentials_, spool_, latencies_) {
    randombytes_buf(key_.data(), key_.size());
    boot_.resize(16);
    randombytes_buf(boot_.data(), boot_.size());
    start_us_ = unix_time_us();
    const auto recovered = spool_.stats();
    spdlog::info("start camera={} boot={} bundle={} {} profile={} source={}", config_.camera_id, hex(boot_), bundle_.name,
                 bundle_.version, bundle_.profile, shown_source(config_.source));
    if (recovered.recovered || recovered.torn)
      spdlog::info("spool holds {} packets of an earlier run; {} torn bytes cut off", recovered.recovered, recovered.torn);
  }

  Exit go() {
    std::exception_ptr broken_source;
    try {
      capture_all();
    } catch (const Error& error) {
      if (error.code() != Exit::kSource) throw;
      // What was seen before the source broke still goes out.
      broken_source = std::current_exception();
    }
    while (auto decision = gate_.flush()) {
      if (held_back_) emit(std::move(*held_back_), false);
      held_back_ = std::move(decision);
    }
    const bool stopped = stop_;
    if (held_back_) emit(std::move(*held_back_), !stopped);
    ledger_.close();
    static const std::atomic<bool> never{false};
    const bool delivered = uplink_.drain(stopped ? 2 : int(config_.drain_timeout_s), stopped ? never : stop_);
    fail_on_uplink_problem();
    report();
    if (broken_source) std::rethrow_exception(broken_source);
    if (delivered || stop_) return Exit::kOk;
    throw Error(Exit::kUndelivered, "the source ended, but " + std::to_string(spool_.pending()) +
                                        " packets are not acknowledged by " + config_.server + "; they stay in the spool");
  }

 private:
  void capture_all() {
    int64_t last = -1;
    while (!stop_) {
      Timer wait(latencies_, "capture");
      const bool more = capture_.next(
          [&](const LumaFrame& frame) {
            wait.stop();
            // Of the frames of one tick the first counts; training does the same.
            const auto tick = int64_t(frame.time_ns * uint64_t(bundle_.rate_hz) / 1000000000u);
            if (tick <= last) return;
            last = tick;
            take(frame, uint64_t(tick));
          },
          stop_);
      if (!more) return;
      fail_on_uplink_problem();
    }
  }

  static std::filesystem::path prepare(const std::string& folder) {
    std::error_code problem;
    std::filesystem::create_directories(folder, problem);
    if (problem) throw Error(Exit::kStorage, "cannot create " + folder + ": " + problem.message());
    return folder;
  }

  static std::string hex(const std::string& bytes) {
    std::string text(2 * bytes.size() + 1, '\0');
    sodium_bin2hex(text.data(), text.size(), reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    text.pop_back();
    return text;
  }

  void fail_on_uplink_problem() const {
    if (const auto problem = uplink_.problem(); !problem.empty()) throw Error(Exit::kStorage, problem);
  }

  void take(const LumaFrame& frame, uint64_t number) {
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
    tick.captured_at_us = start_us_ + frame.time_ns / 1000;
    tick.features.resize(mapping_.features());
    mapping_.project(encoder_.tokens(), bundle_.mapping.in_dim, tick.features.data(), kernels::Backend::kSimd);
    map.stop();
    tick.token = behaviour_token(encoder_.probabilities(), bundle_.labels.size(), bundle_.look_threshold);
    // The gate must not act on a token that was not paid for: its decisions are seen outside.
    tick.paid = ledger_.charge(tick.captured_at_us, 0, 0, bundle_.token_bits[tick.token], 0);
    if (!tick.paid) tick.token = 0;
    encoder_.remember(tick.features.data());
    if (auto decision = gate_.push(std::move(tick))) {
      // One tick is held back, so that the last one of a source can say so.
      if (held_back_) emit(std::move(*held_back_), false);
      held_back_ = std::move(decision);
    }
    total.stop();
  }

  void emit(Decision decision, bool last) {
    Timer release(latencies_, "release");
    const Tick& tick = decision.tick;
    const double mu = bundle_.mapping.clip / bundle_.sigma;
    Kind kind = tick.paid ? kWithheldByGate : kWithheldByLedger;
    if (tick.paid && decision.open)
      kind = ledger_.charge(tick.captured_at_us, 1, bundle_.bits_per_release, 0, mu * mu) ? kFeatures : kWithheldByLedger;
    packed_.assign(mapping_.packed_bytes(), 0);
    if (kind == kFeatures) mapping_.release(tick.features.data(), key_.data(), releases_++, packed_.data(), kernels::Backend::kSimd);
    ++counts_[kind];
    sodium_memzero(decision.tick.features.data(), decision.tick.features.size() * sizeof(int16_t));
    v1::FeaturePacket packet;
    packet.set_camera_id(config_.camera_id);
    packet.set_boot_id(boot_);
    packet.set_sequence(tick.number);
    packet.set_captured_at_us(tick.captured_at_us);
    packet.set_bundle_id(bundle_.id.data(), bundle_.id.size());
    packet.set_features(packed_.data(), packed_.size());
    packet.set_kind(kind);
    packet.set_token(tick.token);
    packet.set_last(last);
    packet.set_ledger_releases(ledger_.totals().releases);
    packet.set_ledger_bits(ledger_.totals().bits());
    release.stop();
    Timer spool(latencies_, "spool");
    spool_.append(packet.SerializeAsString());
    spool.stop();
  }

  void report() {
    const auto& t = ledger_.totals();
    const auto s = spool_.stats();
    const auto u = uplink_.stats();
    const uint64_t ticks = counts_[0] + counts_[1] + counts_[2];
    const nlohmann::json j = {
        {"camera_id", config_.camera_id},
        {"boot_id", hex(boot_)},
        {"ticks", ticks},
        {"seconds", double(ticks) / bundle_.rate_hz},
        {"released", counts_[kFeatures]},
        {"withheld_by_gate", counts_[kWithheldByGate]},
        {"withheld_by_ledger", counts_[kWithheldByLedger]},
        {"bits", double(counts_[kFeatures]) * bundle_.bits_per_release + token_bits_of_run()},
        {"bits_per_release", bundle_.bits_per_release},
        {"profile", bundle_.profile},
        {"source_bytes", capture_.source_bytes()},
        {"ledger", {{"releases", t.releases}, {"feature_bits", t.feature_bits}, {"token_bits", t.token_bits}, {"mu", std::sqrt(t.mu_squared)}, {"day_bits", t.day_bits}}},
        {"spool", {{"appended", s.appended}, {"acknowledged", s.acknowledged}, {"dropped", s.dropped}, {"torn", s.torn}, {"recovered", s.recovered}, {"pending", spool_.pending()}}},
        {"uplink", {{"sent", u.sent}, {"acknowledged", u.acknowledged}, {"connections", u.connections}, {"failures", u.failures}}},
        {"stages", latencies_.summary()}};
    spdlog::info("done ticks={} released={} gate={} ledger={} bits={:.0f} pending={}", ticks, counts_[kFeatures],
                 counts_[kWithheldByGate], counts_[kWithheldByLedger], t.bits(), spool_.pending());
    if (!config_.stats.empty()) write_file_atomic(config_.stats, j.dump(2) + "\n");
  }

  double token_bits_of_run() const { return ledger_.totals().token_bits - token_bits_before_; }

  const Config& config_;
  const std::atomic<bool>& stop_;
  Bundle bundle_;
  Credentials credentials_;
  Capture capture_;
  kernels::Mapping mapping_;
  kernels::Preprocessor preprocessor_;
  Encoder encoder_;
  Gate gate_;
  LockedArray<int8_t> input_;
  LockedArray<uint8_t> key_;
  std::vector<uint8_t> packed_;
  Latencies latencies_;
  Spool spool_;
  Ledger ledger_;
  double token_bits_before_ = ledger_.totals().token_bits;
  Uplink uplink_;
  std::string boot_;
  uint64_t start_us_ = 0, releases_ = 0;
  uint64_t counts_[3] = {};
  std::optional<Decision> held_back_;
};

}  // namespace

Exit run(const Config& config, const std::atomic<bool>& stop) { return Run(config, stop).go(); }

}  // namespace ruyicam::edge
