// `ruyicam-edge enrol`: a new device gets the certificate of its camera for a token that is good once.
#pragma once
#include "config.hpp"

namespace ruyicam::edge {

// Makes a private key (EC P-256) in config.key, which stays on the device, and writes the certificate to config.cert. A key
// that is there already is used: the answer to an earlier attempt may have been lost. Throws Error(kUsage) if there is a
// certificate already, Error(kCredentials) if the server refuses or `ca` is not its authority, Error(kUndelivered) if it
// cannot be reached, Error(kStorage).
void enrol(const Config& config, const EnrolOptions& options);

}  // namespace ruyicam::edge
