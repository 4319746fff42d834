#include "store.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>

#include "files.hpp"
#include "records.hpp"
#include "ruyicam/v1/uplink.pb.h"

namespace ruyicam::edge {
namespace {

double lower(double ceiling, double wanted) { return wanted > 0 ? std::min(ceiling, wanted) : ceiling; }

// Of packets in a full spool those go last that hold features around a look.
std::function<bool(const std::string&)> worth_keeping(const Bundle& bundle) {
  return [heartbeat = uint64_t(bundle.heartbeat_ticks)](const std::string& bytes) {
    v1::FeaturePacket packet;
    if (!packet.ParseFromString(bytes)) return false;
    return packet.kind() == kFeatures && (packet.token() != 0 || packet.sequence() % heartbeat != 0);
  };
}

}  // namespace

LedgerBudget lowered(LedgerBudget budget, const Config& config) {
  budget.bits_per_second = lower(budget.bits_per_second, config.bits_per_second);
  budget.bits_per_day = lower(budget.bits_per_day, config.bits_per_day);
  budget.mu_per_day = lower(budget.mu_per_day, config.mu_per_day);
  budget.token_bits_per_day = lower(budget.token_bits_per_day, config.token_bits_per_day);
  return budget;
}

Store::Store(const Config& config, const Bundle& bundle, CredentialFiles& credentials, Latencies& latencies)
    : folder(make_folder(config.state_dir)), certificates(make_folder(folder / "certificates")),
      witness(config.witness.empty() ? folder / "witness.json" : std::filesystem::path(config.witness)),
      ledger(folder / "ledger.json", config.camera_id, lowered(bundle.budget, config), witness), before(ledger.totals()),
      spool(folder / "spool", uint64_t(config.spool_max_bytes), std::chrono::hours(config.spool_max_hours), worth_keeping(bundle)),
      uplink(config.server, credentials, certificates, spool, latencies) {}

}  // namespace ruyicam::edge
