// Two slots for bundles that came as updates, beside the one that the device was made with: a new bundle is tried, and
// kept or taken back. What is on disk is at every moment a whole choice.
#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "bundle.hpp"

namespace ruyicam::edge {

// `folder`/slots.json, `folder`/a.ruyicam and b.ruyicam. Not thread-safe but for wanted(), staging() and install(), which
// one thread may use while nothing else changes the slots.
class Slots {
 public:
  // factory: the configured bundle. floor: no bundle whose serial is below it is ever run; a bundle's own floor, once it has
  // proved well, raises it for good.
  Slots(std::filesystem::path folder, std::filesystem::path factory, std::filesystem::path public_key, uint64_t floor);

  // The bundle to run: the one on trial, whose starts are counted on disk before it runs; else the one in use; where that
  // is damaged the other slot's, then the configured one. Throws Error(kBundle), Error(kCredentials) like load_bundle when
  // nothing is left, or Error(kStorage).
  const Bundle& load();
  const Bundle& bundle() const { return bundle_; }
  bool on_trial() const { return on_trial_; }
  // It is well: in use from now on. Throws Error(kStorage).
  void confirm();
  // It is not: the one before is in use at the next start, and this one is not installed again if that is `for_good`, or
  // has come so for the third time. Throws Error(kStorage).
  void reject(const std::string& why, bool for_good);

  // Why that bundle is not to be installed; empty: it may be. It must not let more out than the configured one: that takes
  // someone at the device. newer_only: only one with a greater serial is wanted.
  std::string unwanted(const Bundle& bundle, bool newer_only) const;
  // An empty folder for a bundle that is being fetched. Throws Error(kStorage).
  std::filesystem::path staging() const;
  // Verifies the bundle in staging() and puts it on trial from the next start on. Throws Error(kBundle) if it is not wanted
  // or not good, Error(kStorage).
  void install(bool newer_only);

 private:
  struct State {
    std::string active, trial;  // "a", "b" or "": the configured one, none
    int starts_left = 0;
    uint64_t floor = 0;
    std::map<std::string, int> tries;  // of bundles that were taken back, by id
    std::string factory;               // id of the configured bundle when the slot was chosen
  };

  std::filesystem::path path_of(const std::string& slot) const;
  const Bundle& choose();
  bool try_load(const std::string& slot);
  void read();
  void write(const State& state);
  void allow(const Bundle& bundle);
  uint64_t floor() const { return std::max(floor_, state_.floor); }

  std::filesystem::path folder_, factory_, public_key_;
  uint64_t floor_;
  State state_;
  Bundle bundle_;
  std::string allowed_profile_;
  LedgerBudget allowed_;
  bool on_trial_ = false;
};

}  // namespace ruyicam::edge
