// What the keeper has on disk and on the network.
#pragma once
#include <spdlog/spdlog.h>

#include <atomic>
#include <filesystem>

#include "bundle.hpp"
#include "config.hpp"
#include "credentials.hpp"
#include "error.hpp"
#include "ledger.hpp"
#include "spool.hpp"
#include "stats.hpp"
#include "uplink.hpp"
#include "witness.hpp"

namespace ruyicam::edge {

// The bundle's ceilings, where the configuration has smaller ones those.
LedgerBudget lowered(LedgerBudget budget, const Config& config);

// Made when the first tick has come, so that a source that fails leaves no trace. Throws Error(kStorage).
struct Store {
  Store(const Config& config, const Bundle& bundle, CredentialFiles& credentials, Latencies& latencies);

  std::filesystem::path folder, certificates;
  Witness witness;
  Ledger ledger;
  LedgerTotals before;
  Spool spool;
  Uplink uplink;
};

// A camera's disk that takes nothing: what cannot be charged or kept is lost, and the next tick tries again. Said once.
class Trouble {
 public:
  void failed(const Error& error) {
    if (error.code() != Exit::kStorage) throw error;
    if (!bad_.exchange(true)) spdlog::error("storage: {}; nothing leaves until it works", error.what());
  }
  void mended(const char* what) {
    if (bad_.exchange(false)) spdlog::info("storage works again: {}", what);
  }
  bool now() const { return bad_; }

 private:
  std::atomic<bool> bad_{false};
};

}  // namespace ruyicam::edge
