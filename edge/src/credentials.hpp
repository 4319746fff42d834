// Certificates of the mutually authenticated uplink, checked before they are used.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

namespace ruyicam::edge {

struct Credentials {
  std::string ca, cert, key;  // PEM
  int64_t expires = 0;        // Unix time at which the device's own certificate does
  bool operator==(const Credentials&) const = default;
};

// Throws Error(kCredentials) with one line: unreadable, not PEM, expired, not yet valid, key of another certificate,
// or a common name that is not the camera's.
Credentials load_credentials(const std::string& ca, const std::string& cert, const std::string& key,
                             const std::string& camera_id);

// The files of load_credentials, read again when they are renewed. Thread-safe.
class CredentialFiles {
 public:
  // Throws like load_credentials.
  CredentialFiles(std::string ca, std::string cert, std::string key, std::string camera_id);
  std::shared_ptr<const Credentials> current() const;
  // True: the files hold others than before, and those are good. Others that are not good are named once in the log, and
  // what was current stays so: files may be renewed one after another.
  bool renew();

 private:
  std::string ca_, cert_, key_, camera_id_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Credentials> current_;
  std::string last_problem_;
};

}  // namespace ruyicam::edge
