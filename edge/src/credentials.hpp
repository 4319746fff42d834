// Certificates of the mutually authenticated uplink, checked before they are used.
#pragma once
#include <string>

namespace ruyicam::edge {

struct Credentials {
  std::string ca, cert, key;  // PEM
};

// Throws Error(kCredentials) with one line: unreadable, not PEM, expired, not yet valid, key of another certificate,
// or a common name that is not the camera's.
Credentials load_credentials(const std::string& ca, const std::string& cert, const std::string& key,
                             const std::string& camera_id);

}  // namespace ruyicam::edge
