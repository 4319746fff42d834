// What has been released, kept on disk, and the budget that closes the door when it is spent.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace ruyicam::edge {

struct LedgerBudget {
  double bits_per_second = 0;
  double bits_per_day = 0;
};

struct LedgerTotals {
  uint64_t releases = 0;     // feature releases, all time
  double feature_bits = 0;   // sum of the per-release bounds
  double token_bits = 0;     // sum of the surprisals of the behaviour tokens
  double mu_squared = 0;     // sum of C^2 / sigma^2
  int64_t day = 0;           // days since 1970, never falls
  double day_bits = 0;       // feature and token bits of that day

  double bits() const { return feature_bits + token_bits; }
};

// Charges public constants only. The file always holds at least what was released: charges are written ahead in
// blocks, so a crash can cost budget but never gain any. Not thread-safe.
class Ledger {
 public:
  // Reads or creates `path`. Throws Error(kStorage) if the file is damaged or another camera's (fails closed).
  Ledger(std::filesystem::path path, std::string camera_id, LedgerBudget budget);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // Charges one tick captured at that time; `releases` 0 or 1. False: over budget, nothing was charged and
  // nothing may leave. Throws Error(kStorage) if the charge cannot be made durable.
  bool charge(uint64_t captured_at_us, uint64_t releases, double feature_bits, double token_bits, double mu_squared);
  const LedgerTotals& totals() const { return totals_; }
  // Writes the exact totals, giving back the unused part of the block.
  void close();

 private:
  void write(const LedgerTotals& totals);

  std::filesystem::path path_;
  std::string camera_id_;
  LedgerBudget budget_;
  LedgerTotals totals_, written_;
  std::map<uint64_t, double> seconds_;  // bits of the last minute, by second of capture
};

}  // namespace ruyicam::edge
