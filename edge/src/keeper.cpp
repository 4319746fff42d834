#include "keeper.hpp"

#include <sodium.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "backoff.hpp"
#include "capture.hpp"
#include "certificate.hpp"
#include "files.hpp"
#include "hex.hpp"
#include "log_camera.hpp"
#include "pacer.hpp"
#include "ruyicam/v1/uplink.pb.h"
#include "stats.hpp"
#include "store.hpp"

namespace ruyicam::edge {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr uint64_t kCertifyEvery_ns = 600ull * 1000000000;
// A charge comes at most so long after its tick; less than the minute in which the ledger takes times as they come.
constexpr uint64_t kHeldBack_us = 30000000;
// Slower than that a clock is steered, not set.
constexpr int64_t kClockSet_us = 1000000;
constexpr auto kFirstRetry = 500ms, kLastRetry = 30000ms;
// A source that held so long is back; its next failure begins a new row of attempts.
constexpr auto kHeld = 10s;
// Beyond the time in which the process that sees frames itself gives up on a source: it hangs.
constexpr auto kHanging = 10s;

uint64_t unix_time_us() {
  return uint64_t(std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

uint64_t monotonic_ns() {
  return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count());
}

}  // namespace

// How often the source of a live camera was away, and for how long.
struct Outages {
  uint64_t count = 0, attempts = 0;
  double last_s = 0, all_s = 0;
};

struct Keeper::State {
  const Config& config;
  const Bundle& bundle;
  CredentialFiles& credentials;
  Launcher& launcher;
  size_t camera_index;
  RecordPipe& pipe;
  size_t packed_bytes;
  const std::atomic<bool>&stop, &leave;
  OperationsServer* operations;
  KeeperStatus& shown;
  Latencies latencies;
  nlohmann::json stages = nlohmann::json::object();
  std::string boot = std::string(16, '\0');
  uint64_t begin_us = unix_time_us(), begin_ns = monotonic_ns(), certified_ns = begin_ns, source_bytes = 0;
  std::optional<Store> store;
  std::optional<Pacer> pacer;
  std::mutex mutex;  // the ledger and what follows, between this thread and the packet clock's
  // Paid for and not yet spent: the other process cannot send more than it has asked for.
  uint64_t paid_features = 0;
  std::map<uint64_t, uint32_t> paid_tokens;
  std::atomic<uint64_t> counts[3] = {};
  bool done = false, signalled = false;
  int64_t shift_us = 0;
  Trouble ledger_trouble, spool_trouble;
  std::atomic<uint64_t> lost{0};      // packets that could not be kept
  std::atomic<bool> spent{false};     // the last charge asked for was refused
  std::optional<Error> failure;
  // The process that sees frames.
  std::atomic<bool> camera{false};  // it has said that its source is live
  Epoch epoch;
  uint64_t last_gone = 0;  // number of the last one that ended
  Outages outages;
  Backoff backoff{kFirstRetry, kLastRetry};
  std::optional<Clock::time_point> retry_at, away_since, ticking_since;
  Clock::time_point heard = Clock::now();

  State(const KeeperParts& p, size_t index, KeeperStatus& status)
      : config(p.camera), bundle(p.bundle), credentials(p.credentials), launcher(p.launcher), camera_index(index), pipe(launcher.pipe(index)),
        packed_bytes(kernels::Mapping(bundle.release).packed_bytes()), stop(p.stop), leave(p.leave), operations(p.operations), shown(status) {
    randombytes_buf(boot.data(), boot.size());
  }

  void open_store() {
    store.emplace(config, bundle, credentials, latencies);
    const auto recovered = store->spool.stats();
    spdlog::info("start camera={} boot={} bundle={} {} profile={} source={}", config.camera_id, hex(boot), bundle.name, bundle.version,
                 bundle.profile, shown_source(config.source));
    if (recovered.recovered || recovered.torn)
      spdlog::info("spool holds {} packets of an earlier run; {} torn bytes cut off", recovered.recovered, recovered.torn);
  }

  void serve() {
    launcher.start(camera_index, epoch);
    while (true) {
      if (operations) operations->serve(camera_index, [this] { return figures(); });
      show();
      if (ending() && !signalled) {
        launcher.interrupt(camera_index);
        signalled = true;
      }
      if (retry_at) {
        if (ending()) return;
        if (Clock::now() >= *retry_at) {
          retry_at.reset();
          launcher.start(camera_index, epoch);
        }
      } else if (hangs()) {
        spdlog::error("source {}: the process that sees frames hangs; it is ended", shown_source(config.source));
        heard = Clock::now();
        launcher.kill(camera_index);
      }
      auto record = pipe.read(50);
      if (!record) {
        if (pipe.ended()) throw Error(Exit::kInternal, "the process that starts the others is gone");
        check();
        continue;
      }
      heard = Clock::now();
      check();
      if (record->head.type == RecordType::kGone) {
        if (!gone(*record)) return;
      } else {
        take(*record);
      }
    }
  }

  bool ending() const { return stop || leave; }

  void show() {
    shown.beat_ns = monotonic_ns();
    shown.ticking_ns = ticking_since ? uint64_t(std::chrono::nanoseconds(ticking_since->time_since_epoch()).count()) : 0;
    shown.away = away_since.has_value();
    if (!store) return;
    shown.waiting = store->spool.pending();
    // A packet of this boot is at the server, which so knows the bundle.
    shown.delivers = store->uplink.stats().acknowledged > store->spool.stats().recovered;
  }

  bool hangs() const {
    if (signalled) return Clock::now() > heard + kHanging;
    // Before its first tick it may be building an engine.
    return ticking_since && camera && Clock::now() > heard + std::chrono::seconds(config.source_timeout_s) + kHanging;
  }

  void take(Record& record) {
    RecordHead& head = record.head;
    const bool tick = head.type == RecordType::kTokenWanted || head.type == RecordType::kFeaturesWanted || head.type == RecordType::kPacket;
    if (tick && !store) open_store();
    if (tick && !ticking_since) back();
    if (tick && head.live == 2) camera = true;
    switch (head.type) {
      case RecordType::kTokenWanted:
      case RecordType::kFeaturesWanted: pipe.answer(charge(head)); break;
      case RecordType::kPacket:
        head.values[0] += (double(monotonic_ns()) - head.values[1]) / 1000;
        if (epoch.first_ns == 0) epoch = {head.first_ns, head.time_us - head.number * 1000000u / uint64_t(bundle.rate_hz)};
        if (head.live && !pacer) start_clock();
        if (pacer)
          pacer->put(std::move(record));
        else
          send(record);
        break;
      case RecordType::kStage: {
        const double* v = head.values;
        stages[text_of(record)] = {{"count", uint64_t(v[0])}, {"p50_us", v[1]}, {"p95_us", v[2]}, {"p99_us", v[3]}, {"max_us", v[4]}};
        break;
      }
      case RecordType::kDone:
        source_bytes = uint64_t(head.values[0]);
        done = true;
        break;
      case RecordType::kFailure: failure.emplace(Exit(head.kind), text_of(record)); break;
      case RecordType::kNotice: spdlog::warn("{}", text_of(record)); break;
      default: throw Error(Exit::kInternal, "a record of no known kind");
    }
  }

  // The first tick of a process.
  void back() {
    ticking_since = Clock::now();
    if (!away_since) return;
    outages.last_s = std::chrono::duration<double>(*ticking_since - *away_since).count();
    outages.all_s += outages.last_s;
    away_since.reset();
    spdlog::info("source {} is back after {:.1f} s", shown_source(config.source), outages.last_s);
  }

  // The process that sees frames has ended. True: it will be started again.
  bool gone(const Record& record) {
    if (record.head.number == last_gone) return true;
    last_gone = record.head.number;
    // What the fetch process had to say tells more than that the stream broke off.
    if (const auto why = text_of(record); !why.empty() && (done || (failure && failure->code() == Exit::kSource))) {
      failure.emplace(Exit::kSource, why);
      done = false;
    }
    if (!done && !failure && !ending())
      failure.emplace(Exit::kInternal, store ? "the process that sees frames ended unexpectedly"
                                             : "the process that sees frames ended without a word");
    const bool known_live = camera || is_live(config.source);
    const bool wanted = config.source_retry == "always" || (config.source_retry == "seen" && camera);
    const bool mendable = done || !failure || failure->code() == Exit::kSource || (failure->code() == Exit::kInternal && camera);
    // Who stops it does not ask how the camera is.
    if (ending() && known_live && mendable) failure.reset();
    if (ending() || !known_live || !wanted || !mendable) return false;
    const auto now = Clock::now();
    if (ticking_since && now - *ticking_since > kHeld) backoff.reset();
    if (!away_since) {
      away_since = now;
      ++outages.count;
    }
    ++outages.attempts;
    const auto wait = backoff.next();
    spdlog::warn("{}; trying again in {:.1f} s", failure ? failure->what() : "source " + shown_source(config.source) + ": the stream ended",
                 double(wait.count()) / 1000);
    retry_at = now + wait;
    ticking_since.reset();
    failure.reset();
    done = false;
    return true;
  }

  // Only printable characters of what the other process says are ever shown.
  std::string text_of(const Record& record) const {
    std::string text(record.payload.begin(), std::find(record.payload.begin(), record.payload.end(), 0));
    for (char& c : text)
      if (c < ' ' || c > '~') c = '?';
    return text;
  }

  void check() const {
    if (!store) return;
    if (const auto problem = store->uplink.problem(); !problem.empty()) throw Error(Exit::kStorage, problem);
    if (pacer)
      if (const auto problem = pacer->problem(); !problem.empty()) throw Error(Exit::kStorage, problem);
  }

  void start_clock() {
    const uint64_t around = bundle.certified() ? 1 : uint64_t(bundle.around_ticks) + 1;
    const uint64_t hold = around * 1000 / uint64_t(bundle.rate_hz) + uint64_t(config.packet_hold_ms);
    pacer.emplace(bundle.rate_hz, hold, payload_size(packed_bytes), [this](const Record& record) { send(record); });
  }

  bool charge(const RecordHead& head) {
    Charge c{.time_us = head.time_us};
    // A camera sees now, within what is held back; time that ran ahead would end visits early. By this process's own clock,
    // which nobody can set, and not by what the other process says it is.
    if (pacer || camera || is_live(config.source)) {
      const uint64_t now = begin_us + (monotonic_ns() - begin_ns) / 1000;
      c.time_us = std::clamp(c.time_us, now - std::min(now, kHeldBack_us), now + 1000000);
    }
    if (head.type == RecordType::kTokenWanted) {
      if (head.token >= bundle.token_bits.size()) return false;
      c.token_bits = bundle.token_bits[head.token];
      c.worst_token_bits = bundle.worst_token_bits();
    } else {
      const double mu = bundle.release.clip / bundle.sigma;
      c.releases = 1;
      c.feature_bits = bundle.bits_per_release;
      c.mu_squared = mu * mu;
    }
    const std::lock_guard lock(mutex);
    try {
      if (!store->ledger.charge(c)) {
        spent = true;
        return false;
      }
      spent = false;
    } catch (const Error& error) {
      if (!camera) throw;
      // What cannot be charged does not leave; a disk that is full may be mended.
      ledger_trouble.failed(error);
      return false;
    }
    ledger_trouble.mended("ledger");
    if (c.releases)
      ++paid_features;
    else
      paid_tokens[head.number] = head.token;
    return true;
  }

  // A packet of the other process, to the spool; what was not paid for is taken out of it.
  void send(const Record& record) {
    const uint64_t begun = monotonic_ns();
    RecordHead head = record.head;
    std::string features(record.payload.begin(), record.payload.begin() + long(packed_bytes));
    LedgerTotals totals;
    {
      const std::lock_guard lock(mutex);
      totals = store->ledger.totals();
      const auto token = paid_tokens.find(head.number);
      const bool token_paid = token != paid_tokens.end() && token->second == head.token;
      paid_tokens.erase(paid_tokens.begin(), paid_tokens.upper_bound(head.number));
      if (head.token != 0 && !token_paid) head.token = 0;
      if (head.kind == kFeatures && paid_features == 0) head.kind = kWithheldByLedger;
      if (head.kind == kFeatures) --paid_features;
    }
    if (head.kind > kWithheldByLedger) head.kind = kWithheldByGate;
    if (head.kind != kFeatures) std::fill(features.begin(), features.end(), '\0');
    ++counts[head.kind];
    v1::FeaturePacket packet;
    packet.set_camera_id(config.camera_id);
    packet.set_boot_id(boot);
    packet.set_sequence(head.number);
    packet.set_captured_at_us(head.time_us + clock_shift(head.time_us));
    packet.set_bundle_id(bundle.id.data(), bundle.id.size());
    packet.set_features(features);
    packet.set_kind(head.kind);
    packet.set_token(head.token);
    packet.set_last(head.last);
    packet.set_ledger_releases(totals.releases);
    packet.set_ledger_bits(totals.bits());
    try {
      store->spool.append(packet.SerializeAsString());
      spool_trouble.mended("spool");
    } catch (const Error& error) {
      if (!camera) throw;
      spool_trouble.failed(error);
      ++lost;
    }
    const double spooled_us = double(monotonic_ns() - begun) / 1000;
    latencies.add("spool", spooled_us);
    // Without the time that a packet waits by design: for its surroundings, and for its time on the packet clock.
    if (head.values[1] > 0) latencies.add("capture_to_packet", head.values[0] + spooled_us);
    if (const uint64_t now = monotonic_ns(); now > certified_ns + kCertifyEvery_ns) {
      certified_ns = now;
      try {
        certify(false);
      } catch (const Error& error) {
        // The next one covers what this one would have.
        if (!camera) throw;
        spdlog::warn("certificate: {}", error.what());
      }
    }
  }

  // What the system's clock has been set by since tick 0; the wire's times follow it, the ledger's do not.
  int64_t clock_shift(uint64_t time_us) {
    if (!pacer) return 0;
    const auto elapsed = int64_t((monotonic_ns() - epoch.first_ns) / 1000);
    const int64_t shift = int64_t(unix_time_us()) - int64_t(epoch.start_us) - elapsed;
    if (std::abs(shift - shift_us) > kClockSet_us) {
      spdlog::warn("the system's clock was set by {:.1f} s", double(shift - shift_us) / 1e6);
      shift_us = shift;
    }
    return std::max(shift_us, -int64_t(time_us));
  }

  void certify(bool final) {
    LedgerTotals now;
    {
      const std::lock_guard lock(mutex);
      now = store->ledger.totals();
    }
    write_certificate(store->certificates, hex(boot), *credentials.current(),
                      session_statement(bundle, config.camera_id, hex(boot), begin_us, unix_time_us(), final, store->before, now));
    store->uplink.offer_certificates();
  }

  // What the stats file, the metrics and the health endpoint tell. Called by the serving thread only.
  nlohmann::json figures() {
    LedgerTotals t, before;
    SpoolStats s;
    UplinkStats u;
    uint64_t pending = 0;
    if (store) {
      const std::lock_guard lock(mutex);
      t = store->ledger.totals();
      before = store->before;
      s = store->spool.stats();
      u = store->uplink.stats();
      pending = store->spool.pending();
    }
    const uint64_t ticks = counts[0] + counts[1] + counts[2];
    nlohmann::json all = latencies.summary();
    all.update(stages);
    return {
        {"camera_id", config.camera_id},
        {"boot_id", hex(boot)},
        {"bundle", bundle.name},
        {"bundle_version", bundle.version},
        {"source", shown.beat_ns == KeeperStatus::kOver ? "ended" : ticking_since ? "ticking" : away_since ? "away" : "starting"},
        {"storage", ledger_trouble.now() || spool_trouble.now() ? "failing" : "ok"},
        {"budget", spent ? "spent" : "open"},
        {"ticks", ticks},
        {"seconds", double(ticks) / bundle.rate_hz},
        {"released", counts[kFeatures].load()},
        {"withheld_by_gate", counts[kWithheldByGate].load()},
        {"withheld_by_ledger", counts[kWithheldByLedger].load()},
        {"bits", t.bits() - before.bits()},
        {"bits_per_release", bundle.bits_per_release},
        {"profile", bundle.profile},
        {"source_bytes", source_bytes},
        {"outages", {{"count", outages.count}, {"attempts", outages.attempts}, {"last_s", outages.last_s}, {"all_s", outages.all_s}}},
        {"clock", {{"filled", pacer ? pacer->filled() : 0}, {"late", pacer ? pacer->late() : 0}}},
        {"ledger", {{"releases", t.releases}, {"bits", t.bits()}, {"feature_bits", t.feature_bits}, {"token_bits", t.token_bits}, {"mu", std::sqrt(t.mu_squared)}, {"day_bits", t.day_bits}, {"day_bits_limit", lowered(bundle.budget, config).bits_per_day}}},
        {"spool", {{"appended", s.appended}, {"acknowledged", s.acknowledged}, {"dropped", s.dropped}, {"torn", s.torn}, {"damaged", s.damaged}, {"lost", lost.load()}, {"recovered", s.recovered}, {"pending", pending}}},
        {"uplink", {{"sent", u.sent}, {"acknowledged", u.acknowledged}, {"connections", u.connections}, {"failures", u.failures}, {"silent_s", u.silent_s}, {"certificate_expires", credentials.current()->expires}}},
        {"stages", all}};
  }

  nlohmann::json report() {
    nlohmann::json j = figures();
    spdlog::info("done ticks={} released={} gate={} ledger={} bits={:.0f} pending={}", j["ticks"].get<uint64_t>(), counts[kFeatures].load(),
                 counts[kWithheldByGate].load(), counts[kWithheldByLedger].load(), j["ledger"]["bits"].get<double>(), j["spool"]["pending"].get<uint64_t>());
    return j;
  }
};

Keeper::Keeper(const KeeperParts& parts, size_t index) : state_(std::make_unique<State>(parts, index, status_)) {}

Keeper::~Keeper() = default;

void Keeper::run() {
  State& s = *state_;
  log_camera() = s.config.camera_id;
  s.serve();
  status_.beat_ns = KeeperStatus::kOver;
  // Told to stop before the source gave anything, or it has not.
  if (!s.store) {
    if (s.failure) throw *s.failure;
    return;
  }
  if (s.pacer) s.pacer->finish();
  s.check();
  const bool stopped = s.ending();
  s.store->ledger.close();
  s.certify(true);
  static const std::atomic<bool> never{false};
  const bool delivered = s.store->uplink.drain(stopped ? 2 : int(s.config.drain_timeout_s), stopped ? never : s.stop);
  s.check();
  last_ = s.report();
  if (s.operations) s.operations->leave(s.camera_index, last_);
  if (s.failure) throw *s.failure;
  // A source that has an end was read to it.
  finished_ = s.done && delivered;
  if (delivered || s.ending()) return;
  throw Error(Exit::kUndelivered, "the source ended, but " + std::to_string(s.store->spool.pending()) + " packets are not acknowledged by " +
                                      s.config.server + "; they stay in the spool");
}

}  // namespace ruyicam::edge
