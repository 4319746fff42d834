// A camera's keeper: ledger, spool, uplink and certificate. It never sees a frame.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "bundle.hpp"
#include "config.hpp"
#include "credentials.hpp"
#include "launcher.hpp"
#include "operations.hpp"

namespace ruyicam::edge {

// What a keeper works with; all of it outlives the keeper.
struct KeeperParts {
  const Config& camera;
  const Bundle& bundle;
  CredentialFiles& credentials;
  Launcher& launcher;
  OperationsServer* operations;    // or null
  const std::atomic<bool>& stop;   // somebody wants it to end
  const std::atomic<bool>& leave;  // the program ends for a reason of its own
};

// What the program's other threads see of it.
struct KeeperStatus {
  static constexpr uint64_t kOver = std::numeric_limits<uint64_t>::max();
  std::atomic<uint64_t> beat_ns{0};     // CLOCK_MONOTONIC of its loop's last turn; kOver: it serves no process any more
  std::atomic<uint64_t> ticking_ns{0};  // since when its source ticks; 0: it does not
  std::atomic<bool> away{false};        // a live source that has ticked does not
  std::atomic<bool> delivers{false};    // a packet of this boot is at the server
  std::atomic<uint64_t> waiting{0};     // packets in the spool
};

class Keeper {
 public:
  Keeper(const KeeperParts& parts, size_t index);
  ~Keeper();
  // Has the process that sees frames started, again when a live source fails (see `source_retry`), serves it until it is
  // done, and delivers what is left. Throws Error.
  void run();
  const KeeperStatus& status() const { return status_; }

  // After run(): its figures, null if its source never ticked; and whether its source was read to its end, and delivered.
  const nlohmann::json& last() const { return last_; }
  bool finished() const { return finished_; }

 private:
  KeeperStatus status_;
  nlohmann::json last_;
  bool finished_ = false;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ruyicam::edge
