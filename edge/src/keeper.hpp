// The process with disk and network: ledger, spool, uplink and certificate. It never sees a frame.
#pragma once
#include <atomic>
#include <memory>

#include "config.hpp"
#include "credentials.hpp"
#include "error.hpp"
#include "launcher.hpp"
#include "slots.hpp"

namespace ruyicam::edge {

class Keeper {
 public:
  Keeper(const Config& config, Slots& slots, CredentialFiles& credentials, Launcher& launcher, size_t packed_bytes,
         const std::atomic<bool>& stop);
  ~Keeper();
  // Has the process that sees frames started, again when a live source fails (see `source_retry`), serves it until it is
  // done, and delivers what is left. kRestart: an update is installed, or a bundle on trial was taken back. Throws Error with the code and line that the program ends with.
  Exit run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ruyicam::edge
