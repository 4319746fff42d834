#include "ledger.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "files.hpp"

namespace ruyicam::edge {
namespace {

// How many typical ticks one write to disk covers.
constexpr double kBlock = 100;
constexpr uint64_t kMinute = 60;

}  // namespace

Ledger::Ledger(std::filesystem::path path, std::string camera_id, LedgerBudget budget)
    : path_(std::move(path)), camera_id_(std::move(camera_id)), budget_(budget) {
  if (!std::filesystem::exists(path_)) {
    write(totals_);
    return;
  }
  try {
    const auto j = nlohmann::json::parse(read_file(path_, Exit::kStorage, 65536));
    if (j.at("schema").get<int>() != 1) throw std::invalid_argument("unknown schema");
    if (j.at("camera_id").get<std::string>() != camera_id_)
      throw Error(Exit::kStorage, "ledger " + path_.string() + ": belongs to camera '" +
                                      j.at("camera_id").get<std::string>() + "', not '" + camera_id_ + "'");
    totals_.releases = j.at("releases");
    totals_.feature_bits = j.at("feature_bits");
    totals_.token_bits = j.at("token_bits");
    totals_.mu_squared = j.at("mu_squared");
    totals_.day = j.at("day");
    totals_.day_bits = j.at("day_bits");
    if (!(totals_.feature_bits >= 0 && totals_.token_bits >= 0 && totals_.mu_squared >= 0 && totals_.day_bits >= 0))
      throw std::invalid_argument("negative totals");
    written_ = totals_;
  } catch (const std::exception& error) {
    if (dynamic_cast<const Error*>(&error)) throw;
    throw Error(Exit::kStorage, "ledger " + path_.string() + ": damaged, refusing to release features");
  }
}

Ledger::~Ledger() {
  try {
    close();
  } catch (const std::exception&) {
    // The file still holds the block that was written ahead: too much is charged, never too little.
  }
}

void Ledger::write(const LedgerTotals& t) {
  const nlohmann::json j = {{"schema", 1},
                            {"camera_id", camera_id_},
                            {"releases", t.releases},
                            {"feature_bits", t.feature_bits},
                            {"token_bits", t.token_bits},
                            {"mu_squared", t.mu_squared},
                            {"day", t.day},
                            {"day_bits", t.day_bits}};
  write_file_atomic(path_, j.dump(2) + "\n");
  written_ = t;
}

bool Ledger::charge(uint64_t captured_at_us, uint64_t releases, double feature_bits, double token_bits,
                    double mu_squared) {
  const double bits = feature_bits + token_bits;
  // A tick's features are charged after the tokens of later ticks, so seconds overlap. A time from before the last
  // minute is a clock set back: it counts as now.
  const uint64_t newest = seconds_.empty() ? 0 : seconds_.rbegin()->first;
  uint64_t second = captured_at_us / 1000000;
  if (second + kMinute < newest) second = newest;
  const auto spent = seconds_.find(second);
  const double second_bits = (spent == seconds_.end() ? 0 : spent->second) + bits;
  LedgerTotals next = totals_;
  // A clock that jumps back must not open a fresh day.
  if (const auto day = int64_t(second / 86400); day > next.day) {
    next.day = day;
    next.day_bits = 0;
  }
  next.day_bits += bits;
  if (second_bits > budget_.bits_per_second || next.day_bits > budget_.bits_per_day) return false;
  next.releases += releases;
  next.feature_bits += feature_bits;
  next.token_bits += token_bits;
  next.mu_squared += mu_squared;
  if (next.day != written_.day || next.releases > written_.releases || next.feature_bits > written_.feature_bits ||
      next.token_bits > written_.token_bits || next.mu_squared > written_.mu_squared || next.day_bits > written_.day_bits) {
    // What another kind of charge has written ahead stays written.
    LedgerTotals ahead = next;
    ahead.releases = std::max(written_.releases, next.releases + uint64_t(kBlock) * releases);
    ahead.feature_bits = std::max(written_.feature_bits, next.feature_bits + kBlock * feature_bits);
    ahead.token_bits = std::max(written_.token_bits, next.token_bits + kBlock * token_bits);
    ahead.mu_squared = std::max(written_.mu_squared, next.mu_squared + kBlock * mu_squared);
    ahead.day_bits = std::max(next.day == written_.day ? written_.day_bits : 0, next.day_bits + kBlock * bits);
    write(ahead);
  }
  totals_ = next;
  seconds_[second] = second_bits;
  while (seconds_.begin()->first + kMinute < seconds_.rbegin()->first) seconds_.erase(seconds_.begin());
  return true;
}

void Ledger::close() { write(totals_); }

}  // namespace ruyicam::edge
