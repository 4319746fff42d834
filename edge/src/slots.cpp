#include "slots.hpp"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "files.hpp"
#include "hex.hpp"
#include "json.hpp"

namespace ruyicam::edge {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A bundle that ends the program so often before it has proved well is taken back.
constexpr int kTrialStarts = 3;
// A camera or a link that is away all through a trial, or power that is, is not the bundle's doing; so often it is.
constexpr int kTries = 3;

// From the one that lets least out.
int rank(const std::string& profile) { return profile == "strict" ? 0 : profile == "standard" ? 1 : 2; }

// Whether some ceiling of `b` is above that of `a`; figures that were computed differ in their last digits.
bool above(const LedgerBudget& b, const LedgerBudget& a) {
  constexpr double LedgerBudget::* kCeilings[] = {&LedgerBudget::bits_per_second, &LedgerBudget::bits_per_day, &LedgerBudget::mu_per_day,
                                                  &LedgerBudget::token_bits_per_day, &LedgerBudget::visit_mu, &LedgerBudget::visit_token_bits};
  // The same budget for a shorter visit is more.
  return b.visit_us < a.visit_us ||
         std::any_of(std::begin(kCeilings), std::end(kCeilings), [&](auto ceiling) { return b.*ceiling > a.*ceiling * (1 + 1e-9); });
}

void remove_tree(const fs::path& path) {
  std::error_code problem;
  fs::remove_all(path, problem);
  if (problem) throw Error(Exit::kStorage, "cannot remove " + path.string() + ": " + problem.message());
}

}  // namespace

Slots::Slots(fs::path folder, fs::path factory, fs::path public_key, uint64_t floor)
    : folder_(std::move(folder)), factory_(std::move(factory)), public_key_(std::move(public_key)), floor_(floor) {
  read();
}

fs::path Slots::path_of(const std::string& slot) const { return slot.empty() ? factory_ : folder_ / (slot + ".ruyicam"); }

void Slots::read() {
  const fs::path path = folder_ / "slots.json";
  if (!fs::exists(path)) return;
  try {
    const json j = json::parse(read_file(path, Exit::kStorage, 1 << 16));
    const auto slot = [&](const char* key) {
      const std::string name = j.at(key);
      if (!name.empty() && name != "a" && name != "b") throw std::invalid_argument(std::string(key) + " names no slot");
      return name;
    };
    state_ = {slot("active"), slot("trial"), whole_at<int>(j, "starts_left"), whole_at<uint64_t>(j, "floor"), {}, j.at("factory")};
    for (const auto& [id, tries] : j.at("tries").items()) state_.tries[id] = whole<int>(tries, "tries");
  } catch (const std::exception& error) {
    // It is written whole or not at all, so somebody else has been here. The floor is unknown, and guessing it would open it.
    throw Error(Exit::kStorage, path.string() + " is damaged (" + error.what() + "); remove it to start with the configured bundle");
  }
}

void Slots::write(const State& s) {
  make_folder(folder_);
  const json j = {{"active", s.active}, {"trial", s.trial}, {"starts_left", s.starts_left}, {"floor", s.floor}, {"tries", s.tries}, {"factory", s.factory}};
  write_file_atomic(folder_ / "slots.json", j.dump(2) + "\n");
  state_ = s;
}

bool Slots::try_load(const std::string& slot) {
  try {
    Bundle found = load_bundle(path_of(slot), public_key_);
    if (found.serial < floor())
      throw Error(Exit::kBundle, "bundle " + path_of(slot).string() + ": serial " + std::to_string(found.serial) + " is below the floor " + std::to_string(floor()));
    bundle_ = std::move(found);
    return true;
  } catch (const Error& error) {
    // The last resort says by itself what is wrong.
    if (slot.empty()) throw;
    spdlog::error("update: {}", error.what());
    return false;
  }
}

void Slots::allow(const Bundle& bundle) {
  allowed_profile_ = bundle.profile;
  allowed_ = bundle.budget;
}

const Bundle& Slots::load() {
  on_trial_ = false;
  const Bundle& found = choose();
  // A configured bundle that cannot be read allows no more than the one that runs.
  allow(found);
  try {
    allow(load_bundle(factory_, public_key_));
  } catch (const Error&) {
  }
  return found;
}

const Bundle& Slots::choose() {
  if (!state_.active.empty() || !state_.trial.empty()) {
    // A device that was given another bundle by hand is meant to run it.
    bool same = true;
    try {
      same = hex(load_bundle(factory_, public_key_).id) == state_.factory;
    } catch (const Error&) {
      // Not needed while a slot is good.
    }
    if (!same) {
      spdlog::info("update: the configured bundle was replaced; it is used instead of the slots");
      State next = state_;
      next.active.clear();
      next.trial.clear();
      write(next);
    }
  }
  if (!state_.trial.empty() && state_.starts_left <= 0) reject("it did not prove well in " + std::to_string(kTrialStarts) + " starts", false);
  if (!state_.trial.empty()) {
    State next = state_;
    --next.starts_left;
    write(next);
    if (try_load(state_.trial)) {
      on_trial_ = true;
      spdlog::info("update: bundle {} {} (serial {}) is on trial, start {} of {}", bundle_.name, bundle_.version, bundle_.serial,
                   kTrialStarts - state_.starts_left, kTrialStarts);
      return bundle_;
    }
    next.trial.clear();
    write(next);
  }
  const std::string other = state_.active == "a" ? "b" : "a";
  if (!state_.active.empty() && (try_load(state_.active) || (fs::exists(path_of(other)) && try_load(other)))) return bundle_;
  try_load("");
  return bundle_;
}

void Slots::confirm() {
  State next = state_;
  next.active = std::exchange(next.trial, "");
  next.floor = std::max(next.floor, bundle_.floor);
  write(next);
  on_trial_ = false;
  spdlog::info("update: bundle {} {} has proved well and is in use; floor {}", bundle_.name, bundle_.version, floor());
}

void Slots::reject(const std::string& why, bool for_good) {
  State next = state_;
  const fs::path path = path_of(next.trial);
  try {
    int& tries = next.tries[hex(load_bundle(path, public_key_).id)];
    tries = for_good ? kTries : tries + 1;
  } catch (const Error&) {
    // What cannot be read is not run again either.
  }
  next.trial.clear();
  write(next);
  on_trial_ = false;
  spdlog::error("update: taken back: {}", why);
}

std::string Slots::unwanted(const Bundle& b, bool newer_only) const {
  if (b.id == bundle_.id) return "it is in use";
  if (const auto tries = state_.tries.find(hex(b.id)); tries != state_.tries.end() && tries->second >= kTries) return "it did not prove well here";
  if (b.serial < floor()) return "its serial " + std::to_string(b.serial) + " is below the floor " + std::to_string(floor());
  if (rank(b.profile) > rank(allowed_profile_)) return "its profile " + b.profile + " lets more out than the configured bundle's, " + allowed_profile_;
  if (above(b.budget, allowed_)) return "its budget is above the configured bundle's";
  if (newer_only && b.serial <= bundle_.serial) return "its serial " + std::to_string(b.serial) + " is not above " + std::to_string(bundle_.serial) + ", which is in use";
  return "";
}

fs::path Slots::staging() const {
  const fs::path path = folder_ / "partial";
  remove_tree(path);
  return make_folder(path);
}

void Slots::install(bool newer_only) {
  const fs::path staged = folder_ / "partial";
  const Bundle found = load_bundle(staged, public_key_);
  if (const auto why = unwanted(found, newer_only); !why.empty()) throw Error(Exit::kBundle, "bundle " + found.name + " " + found.version + ": " + why);
  for (const auto& file : fs::directory_iterator(staged)) {
    const int fd = ::open(file.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ::fsync(fd) != 0) throw_storage("cannot write", file.path());
    ::close(fd);
  }
  sync_folder(staged);
  State next = state_;
  next.trial = next.active == "a" ? "b" : "a";
  next.starts_left = kTrialStarts;
  if (state_.active.empty()) next.factory = hex(bundle_.id);
  const fs::path slot = path_of(next.trial);
  remove_tree(slot);
  std::error_code problem;
  fs::rename(staged, slot, problem);
  if (problem) throw Error(Exit::kStorage, "cannot rename " + staged.string() + ": " + problem.message());
  sync_folder(folder_);
  // From here on it is the next start's; before, nothing has changed.
  write(next);
  spdlog::info("update: bundle {} {} (serial {}) is installed in slot {}", found.name, found.version, found.serial, next.trial);
}

}  // namespace ruyicam::edge
