// Errors that a user reads: one line, and the documented exit code that goes with it.
#pragma once
#include <stdexcept>
#include <string>

namespace ruyicam::edge {

// Exit codes, the same in every command of the project (README, "Exit codes").
enum class Exit {
  kOk = 0,
  kInternal = 1,     // a bug
  kUsage = 2,        // command line or configuration
  kSource = 3,       // clip or camera cannot be opened or decoded
  kBundle = 4,       // bundle unsigned, altered or incompatible
  kCredentials = 5,  // certificate or key missing, mismatched or expired
  kStorage = 6,      // disk full, not writable, or damaged state
  kAddress = 7,      // port in use, or address that cannot be bound
  kUndelivered = 8,  // the source ended, but packets are still in the spool
  kRestart = 10,     // an update was installed or taken back: start again (9 is the audit's)
};

class Error : public std::runtime_error {
 public:
  Error(Exit code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Exit code() const { return code_; }

 private:
  Exit code_;
};

}  // namespace ruyicam::edge
