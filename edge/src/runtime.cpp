#include "runtime.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "credentials.hpp"
#include "files.hpp"
#include "isolation.hpp"
#include "keeper.hpp"
#include "launcher.hpp"
#include "operations.hpp"
#include "slots.hpp"
#include "updater.hpp"

namespace ruyicam::edge {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto kTurn = 50ms;
// A keeper whose loop has not turned for so long hangs; the watchdog is to see it.
constexpr auto kHangs = 2s;

// All cameras of the program, a thread for each, and what they have in common.
class Device {
 public:
  Device(const Config& config, const std::vector<Config>& cameras, Slots& slots, std::deque<CredentialFiles>& credentials, Launcher& launcher,
         const std::atomic<bool>& stop)
      : config_(config), slots_(slots), stop_(stop) {
    // One update at a time. The first camera stands for the device.
    if (config.update_every_s > 0 && !slots.on_trial()) updater_.emplace(config, credentials.front(), slots);
    if (!config.metrics.empty()) {
      operations_.emplace(config.metrics, cameras.size());
      spdlog::info("metrics and health on http://{}", operations_->address());
    }
    for (size_t i = 0; i < cameras.size(); ++i)
      keepers_.emplace_back(KeeperParts{cameras[i], slots.bundle(), credentials[i], launcher, operations_ ? &*operations_ : nullptr, stop, leave_}, i);
  }

  Exit run() {
    running_ = keepers_.size();
    std::vector<std::thread> threads;
    for (Keeper& keeper : keepers_) threads.emplace_back([&] { keep(keeper); });
    manager_.ready();
    bool stopping = false;
    for (std::unique_lock lock(mutex_); running_ > 0; ended_.wait_for(lock, kTurn)) {
      if (!stopping && (stopping = stop_ || leave_)) manager_.stopping();
      if (!stopping && all_turn()) manager_.alive([this] { return status(); });
      try {
        judge_bundle();
      } catch (const Error&) {
        failed(std::current_exception());
      }
    }
    for (std::thread& thread : threads) thread.join();
    write_stats();
    if (failure_) std::rethrow_exception(failure_);
    if (restart_) return Exit::kRestart;
    if (slots_.on_trial() && std::all_of(keepers_.begin(), keepers_.end(), [](const Keeper& k) { return k.finished(); })) slots_.confirm();
    return Exit::kOk;
  }

 private:
  void keep(Keeper& keeper) {
    std::exception_ptr failure;
    // What is wrong with one camera is not the others'.
    bool own = false;
    try {
      keeper.run();
    } catch (const Error& error) {
      failure = std::current_exception();
      own = keepers_.size() > 1 && (error.code() == Exit::kSource || error.code() == Exit::kUndelivered);
      if (own) spdlog::error("{}; the other cameras go on", error.what());
    } catch (...) {
      failure = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    if (failure) failed(failure, own);
    --running_;
    ended_.notify_all();
  }

  // Under mutex_. The first one is what the program ends with.
  void failed(std::exception_ptr failure, bool alone = false) {
    if (!failure_) failure_ = failure;
    if (!alone) leave_ = true;
  }

  bool all_turn() const {
    const auto now = uint64_t(std::chrono::nanoseconds(Clock::now().time_since_epoch()).count());
    return std::all_of(keepers_.begin(), keepers_.end(), [&](const Keeper& k) {
      const uint64_t beat = k.status().beat_ns;
      return beat > now || now - beat < uint64_t(std::chrono::nanoseconds(kHangs).count());
    });
  }

  std::string status() const {
    size_t ticking = 0;
    uint64_t waiting = 0;
    bool away = false;
    for (const Keeper& k : keepers_) {
      ticking += k.status().ticking_ns > 0;
      away = away || k.status().away;
      waiting += k.status().waiting;
    }
    const std::string packets = std::to_string(waiting) + " packets wait for " + config_.server;
    if (keepers_.size() > 1) return std::to_string(ticking) + " of " + std::to_string(keepers_.size()) + " cameras tick; " + packets;
    return away ? "the source is away" : ticking == 0 ? "waiting for the source" : packets;
  }

  // Another bundle is installed; or the one on trial is kept, or taken back.
  void judge_bundle() {
    if (restart_ || leave_) return;
    if (updater_ && updater_->installed()) {
      spdlog::info("update: ending, to be started again with the new bundle");
      leave_ = restart_ = true;
    }
    if (!slots_.on_trial()) return;
    if (runs_well()) {
      slots_.confirm();
    } else if (Clock::now() > begun_ + std::chrono::seconds(config_.update_trial_s)) {
      slots_.reject("it did not prove well in " + std::to_string(config_.update_trial_s) + " s", false);
      leave_ = restart_ = true;
    }
  }

  // A camera ticks long enough, and of those that tick each delivers.
  bool runs_well() const {
    const auto now = uint64_t(std::chrono::nanoseconds(Clock::now().time_since_epoch()).count());
    bool long_enough = false;
    for (const Keeper& k : keepers_) {
      const uint64_t since = k.status().ticking_ns;
      if (since == 0) continue;
      if (!k.status().delivers) return false;
      long_enough = long_enough || now > since + uint64_t(config_.update_health_s) * 1000000000u;
    }
    return long_enough;
  }

  void write_stats() const {
    if (config_.stats.empty()) return;
    nlohmann::json all = nlohmann::json::array();
    for (const Keeper& k : keepers_)
      if (!k.last().is_null()) all.push_back(k.last());
    if (all.empty()) return;
    write_file_atomic(config_.stats, (keepers_.size() == 1 ? all[0] : nlohmann::json{{"cameras", all}}).dump(2) + "\n");
  }

  const Config& config_;
  Slots& slots_;
  const std::atomic<bool>& stop_;
  std::atomic<bool> leave_{false};
  std::optional<OperationsServer> operations_;
  std::optional<Updater> updater_;
  ServiceManager manager_;
  std::deque<Keeper> keepers_;
  const Clock::time_point begun_ = Clock::now();
  bool restart_ = false;  // with another bundle
  std::mutex mutex_;
  std::condition_variable ended_;
  size_t running_ = 0;
  std::exception_ptr failure_;
};

}  // namespace

Exit run(const Config& config, const std::atomic<bool>& stop) {
  Slots slots(std::filesystem::path(config.state_dir) / "bundles", config.bundle, config.public_key, uint64_t(config.update_floor));
  const Bundle& bundle = slots.load();
  const auto cameras = each_camera(config);
  std::deque<CredentialFiles> credentials;
  for (const Config& camera : cameras) credentials.emplace_back(camera.ca, camera.cert, camera.key, camera.camera_id);
  std::signal(SIGPIPE, SIG_IGN);
  Launcher launcher(config, bundle, payload_size(kernels::Mapping(bundle.release).packed_bytes()), stop);
  // After the last fork: this process may not look into the others from here on.
  give_up_inspecting(true);
  try {
    return Device(config, cameras, slots, credentials, launcher, stop).run();
  } catch (const Error& error) {
    // A camera that is away or a disk that is full is not the new bundle's doing.
    if (!slots.on_trial() || (error.code() != Exit::kBundle && error.code() != Exit::kInternal)) throw;
    slots.reject(error.what(), true);
    return Exit::kRestart;
  }
}

}  // namespace ruyicam::edge
