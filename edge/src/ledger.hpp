// What has been released, kept on disk, and the budgets that close the door when they are spent.
#pragma once
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "budget.hpp"
#include "witness.hpp"

namespace ruyicam::edge {

struct LedgerTotals {
  uint64_t releases = 0;    // feature releases, all time
  double feature_bits = 0;  // sum of the per-release bounds
  double token_bits = 0;    // sum of the surprisals of the behaviour tokens
  double mu_squared = 0;    // sum of C^2 / sigma^2
  int64_t day = 0;          // days since 1970, never falls
  double day_bits = 0;      // feature and token bits of that day
  double day_token_bits = 0, day_mu_squared = 0;

  double bits() const { return feature_bits + token_bits; }
};

// The file always holds at least what was released: charges are written ahead in blocks, so a crash can cost budget but
// never gain any; with visits every charge is written as it is. Not thread-safe.
class Ledger {
 public:
  // Reads or creates `path`. Throws Error(kStorage) if the file is damaged, another camera's, not of this device, older
  // than the witness remembers, or gone though the witness remembers it (fails closed).
  Ledger(std::filesystem::path path, std::string camera_id, LedgerBudget budget, Witness& witness);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // False: over a budget, nothing was charged and nothing may leave. Throws Error(kStorage) if the charge cannot be
  // made durable; it is then not charged either. Times are to rise as a clock does that nobody sets; where they begin behind
  // those on file (whose clock was wrong, or is), what is charged goes on from there.
  bool charge(const Charge& charge);
  const LedgerTotals& totals() const { return totals_; }
  // Writes the exact totals, giving back the unused part of the block.
  void close();

 private:
  struct Spent {
    uint64_t time_us;
    double mu_squared, token_bits;
  };

  void read();
  void write(const LedgerTotals& totals);
  bool fits_visit(const Charge& charge, uint64_t time_us) const;

  std::filesystem::path path_;
  std::string camera_id_;
  LedgerBudget budget_;
  Witness& witness_;
  LedgerTotals totals_, written_;
  std::map<uint64_t, double> seconds_;  // bits of the last minute, by second
  std::deque<Spent> visit_;             // charges of the last visit
  std::optional<uint64_t> behind_us_;   // how far the clock was behind the file at the first charge
};

}  // namespace ruyicam::edge
