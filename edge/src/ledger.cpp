#include "ledger.hpp"

#include <sodium.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "files.hpp"
#include "json.hpp"

namespace ruyicam::edge {
namespace {

using nlohmann::json;

// How many typical charges one write to disk covers.
constexpr double kBlock = 100;
constexpr uint64_t kSecond = 1000000, kMinute = 60 * kSecond, kDay = 86400 * kSecond;

// Sums of the same terms in another order differ in their last digits.
bool within(double value, double ceiling) { return value <= ceiling * (1 + 1e-9); }

void raise(double& floor, double value) { floor = std::max(floor, value); }

// The totals after `times` more such charges.
LedgerTotals added(LedgerTotals t, const Charge& c, double times) {
  t.releases += uint64_t(times) * c.releases;
  t.feature_bits += times * c.feature_bits;
  t.token_bits += times * c.token_bits;
  t.mu_squared += times * c.mu_squared;
  t.day_bits += times * (c.feature_bits + c.token_bits);
  t.day_token_bits += times * c.token_bits;
  t.day_mu_squared += times * c.mu_squared;
  return t;
}

bool covers(const LedgerTotals& w, const LedgerTotals& t) {
  return w.day == t.day && w.releases >= t.releases && w.feature_bits >= t.feature_bits && w.token_bits >= t.token_bits &&
         w.mu_squared >= t.mu_squared && w.day_bits >= t.day_bits && w.day_token_bits >= t.day_token_bits &&
         w.day_mu_squared >= t.day_mu_squared;
}

}  // namespace

Ledger::Ledger(std::filesystem::path path, std::string camera_id, LedgerBudget budget, Witness& witness)
    : path_(std::move(path)), camera_id_(std::move(camera_id)), budget_(budget), witness_(witness) {
  if (std::filesystem::exists(path_)) {
    read();
  } else {
    if (witness_.count() > 0)
      throw Error(Exit::kStorage, "ledger " + path_.string() + ": gone, but " + witness_.path().string() + " counts " +
                                      std::to_string(witness_.count()) + " writes of it; refusing to release features");
    write(totals_);
  }
}

void Ledger::read() {
  try {
    const auto file = json::parse(read_file(path_, Exit::kStorage, 1 << 20));
    if (whole_at<int>(file, "schema") != 2) throw std::invalid_argument("unknown schema");
    const json& j = file.at("ledger");
    const std::string mac = file.at("mac"), want = witness_.seal(j.dump());
    if (mac.size() != want.size() || sodium_memcmp(mac.data(), want.data(), mac.size()) != 0)
      throw Error(Exit::kStorage, "ledger " + path_.string() + ": is not sealed with the key in " + witness_.path().string() +
                                      "; refusing to release features");
    if (const std::string owner = j.at("camera_id"); owner != camera_id_)
      throw Error(Exit::kStorage, "ledger " + path_.string() + ": belongs to camera '" + owner + "', not '" + camera_id_ + "'");
    // A crash may come between the file and its witness, never more than one write apart.
    const auto count = whole_at<uint64_t>(j, "count");
    if (count != witness_.count() && count != witness_.count() + 1)
      throw Error(Exit::kStorage, "ledger " + path_.string() + ": an old copy, write " + std::to_string(count) + " of " +
                                      std::to_string(witness_.count()) + "; refusing to release features");
    if (count != witness_.count()) witness_.raise_to(count);
    totals_ = {whole_at<uint64_t>(j, "releases"), j.at("feature_bits"), j.at("token_bits"), j.at("mu_squared"),
               whole_at<int64_t>(j, "day"),      j.at("day_bits"),     j.at("day_token_bits"), j.at("day_mu_squared")};
    for (const double v : {totals_.feature_bits, totals_.token_bits, totals_.mu_squared, totals_.day_bits, totals_.day_token_bits,
                           totals_.day_mu_squared})
      if (!(v >= 0)) throw std::invalid_argument("negative totals");
    for (const json& s : j.at("visit")) visit_.push_back({whole<uint64_t>(s.at(0), "visit"), s.at(1), s.at(2)});
    written_ = totals_;
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
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
  json visit = json::array();
  for (const Spent& s : visit_) visit.push_back({s.time_us, s.mu_squared, s.token_bits});
  const uint64_t count = witness_.count() + 1;
  const json ledger = {{"camera_id", camera_id_},
                       {"count", count},
                       {"releases", t.releases},
                       {"feature_bits", t.feature_bits},
                       {"token_bits", t.token_bits},
                       {"mu_squared", t.mu_squared},
                       {"day", t.day},
                       {"day_bits", t.day_bits},
                       {"day_token_bits", t.day_token_bits},
                       {"day_mu_squared", t.day_mu_squared},
                       {"visit", visit}};
  write_file_atomic(path_, json{{"schema", 2}, {"ledger", ledger}, {"mac", witness_.seal(ledger.dump())}}.dump(2) + "\n");
  witness_.raise_to(count);
  written_ = t;
}

bool Ledger::fits_visit(const Charge& c, uint64_t time_us) const {
  double mu_squared = c.mu_squared, token_bits = std::max(c.token_bits, c.worst_token_bits);
  for (const Spent& s : visit_) {
    if (s.time_us + budget_.visit_us <= time_us) continue;
    mu_squared += s.mu_squared;
    token_bits += s.token_bits;
  }
  return within(std::sqrt(mu_squared), budget_.visit_mu) && within(token_bits, budget_.visit_token_bits);
}

bool Ledger::charge(const Charge& c) {
  const double extra = std::max(0.0, c.worst_token_bits - c.token_bits);
  const double bits = c.feature_bits + c.token_bits;
  // A tick's features are charged after the tokens of later ticks, so seconds overlap. A time from before the last minute,
  // or before the day on file, is a clock set back. Where the first charge finds it so, all go on from the newest time, or a
  // budget would stay shut until the clock has caught up; later it counts as now, or going to and fro would make time run.
  const uint64_t newest = std::max({seconds_.empty() ? 0 : seconds_.rbegin()->first * kSecond, visit_.empty() ? 0 : visit_.back().time_us,
                                    uint64_t(totals_.day) * kDay});
  if (!behind_us_) behind_us_ = c.time_us + kMinute < newest ? newest - c.time_us : 0;
  uint64_t time_us = c.time_us + *behind_us_;
  if (time_us + kMinute < newest) time_us = newest;
  const uint64_t second = time_us / kSecond;
  const auto spent = seconds_.find(second);
  const double second_bits = (spent == seconds_.end() ? 0 : spent->second) + bits;
  LedgerTotals next = totals_;
  if (const auto day = int64_t(second / 86400); day > next.day) {
    next.day = day;
    next.day_bits = next.day_token_bits = next.day_mu_squared = 0;
  }
  next = added(next, c, 1);
  if (!within(second_bits + extra, budget_.bits_per_second) || !within(next.day_bits + extra, budget_.bits_per_day) ||
      !within(next.day_token_bits + extra, budget_.token_bits_per_day) ||
      !within(std::sqrt(next.day_mu_squared), budget_.mu_per_day))
    return false;
  if (budget_.visit_us > 0) {
    if (!fits_visit(c, time_us)) return false;
    while (!visit_.empty() && visit_.front().time_us + budget_.visit_us + kMinute <= time_us) visit_.pop_front();
    visit_.push_back({time_us, c.mu_squared, c.token_bits});
    try {
      write(next);
    } catch (const Error&) {
      visit_.pop_back();
      throw;
    }
  } else if (!covers(written_, next)) {
    LedgerTotals ahead = added(next, c, kBlock);
    // What another kind of charge has written ahead stays written.
    ahead.releases = std::max(ahead.releases, written_.releases);
    raise(ahead.feature_bits, written_.feature_bits);
    raise(ahead.token_bits, written_.token_bits);
    raise(ahead.mu_squared, written_.mu_squared);
    if (next.day == written_.day) {
      raise(ahead.day_bits, written_.day_bits);
      raise(ahead.day_token_bits, written_.day_token_bits);
      raise(ahead.day_mu_squared, written_.day_mu_squared);
    }
    write(ahead);
  }
  totals_ = next;
  seconds_[second] = second_bits;
  while (seconds_.begin()->first * kSecond + kMinute < seconds_.rbegin()->first * kSecond) seconds_.erase(seconds_.begin());
  return true;
}

void Ledger::close() { write(totals_); }

}  // namespace ruyicam::edge
