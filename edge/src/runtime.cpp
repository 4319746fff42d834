#include "runtime.hpp"

#include <csignal>
#include <filesystem>

#include "credentials.hpp"
#include "isolation.hpp"
#include "keeper.hpp"
#include "launcher.hpp"
#include "slots.hpp"

namespace ruyicam::edge {

Exit run(const Config& config, const std::atomic<bool>& stop) {
  Slots slots(std::filesystem::path(config.state_dir) / "bundles", config.bundle, config.public_key, uint64_t(config.update_floor));
  const Bundle& bundle = slots.load();
  CredentialFiles credentials(config.ca, config.cert, config.key, config.camera_id);
  std::signal(SIGPIPE, SIG_IGN);
  const size_t packed = kernels::Mapping(bundle.release).packed_bytes();
  Launcher launcher(config, bundle, payload_size(packed), stop);
  // After the last fork: this process may not look into the others from here on.
  give_up_inspecting(true);
  try {
    return Keeper(config, slots, credentials, launcher, packed, stop).run();
  } catch (const Error& error) {
    // A camera that is away or a disk that is full is not the new bundle's doing.
    if (!slots.on_trial() || (error.code() != Exit::kBundle && error.code() != Exit::kInternal)) throw;
    slots.reject(error.what(), true);
    return Exit::kRestart;
  }
}

}  // namespace ruyicam::edge
