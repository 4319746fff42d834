#include "runtime.hpp"

#include <csignal>

#include "credentials.hpp"
#include "isolation.hpp"
#include "keeper.hpp"
#include "launcher.hpp"

namespace ruyicam::edge {

Exit run(const Config& config, const std::atomic<bool>& stop) {
  const Bundle bundle = load_bundle(config.bundle, config.public_key);
  CredentialFiles credentials(config.ca, config.cert, config.key, config.camera_id);
  std::signal(SIGPIPE, SIG_IGN);
  const size_t packed = kernels::Mapping(bundle.release).packed_bytes();
  Launcher launcher(config, bundle, payload_size(packed), stop);
  // After the last fork: this process may not look into the others from here on.
  give_up_inspecting(true);
  return Keeper(config, bundle, credentials, launcher, packed, stop).run();
}

}  // namespace ruyicam::edge
