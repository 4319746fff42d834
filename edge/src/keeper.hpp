// The process with disk and network: ledger, spool, uplink and certificate. It never sees a frame.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "bundle.hpp"
#include "config.hpp"
#include "credentials.hpp"
#include "error.hpp"
#include "records.hpp"

namespace ruyicam::edge {

class Keeper {
 public:
  Keeper(const Config& config, const Bundle& bundle, const Credentials& credentials, RecordPipe& pipe, size_t packed_bytes, pid_t seer,
         const std::atomic<bool>& stop);
  ~Keeper();
  // Serves the process `seer` until it is done, then delivers what is left. `why_fetch_failed`: what the fetch process has
  // said, empty if nothing. Throws Error with the code and line that the program ends with.
  Exit run(const std::function<std::string()>& why_fetch_failed);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ruyicam::edge
