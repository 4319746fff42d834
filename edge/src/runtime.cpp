#include "runtime.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "capture.hpp"
#include "certificate.hpp"
#include "credentials.hpp"
#include "files.hpp"
#include "hex.hpp"
#include "isolation.hpp"
#include "keeper.hpp"
#include "records.hpp"
#include "vision.hpp"

namespace ruyicam::edge {
namespace {

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw Error(Exit::kInternal, "no pipe left");
    read = ends[0];
    write = ends[1];
  }
};

// Keeps only the descriptors named, and nothing behind the first three.
void close_all_but(std::initializer_list<int> kept) {
  const int null = ::open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) ::dup2(null, fd);
  const int highest = int(sysconf(_SC_OPEN_MAX));
  for (int fd = 3; fd < std::min(highest, 1 << 16); ++fd)
    if (std::find(kept.begin(), kept.end(), fd) == kept.end()) ::close(fd);
}

// Runs `body` in a process of its own, which ends with what it returns.
template <class Body>
pid_t spawn(Body body) {
  const pid_t child = ::fork();
  if (child < 0) throw Error(Exit::kInternal, "no process can be started");
  if (child == 0) {
    int code = int(Exit::kInternal);
    try {
      code = body();
    } catch (const std::exception&) {
      // Its neighbours see that it is gone.
    }
    // Nothing of the parent's is this process's to clean up.
    ::_exit(code);
  }
  return child;
}

// A child that is ended with its owner.
struct Child {
  pid_t pid = -1;
  ~Child() {
    if (pid <= 0) return;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
};

}  // namespace

Exit run(const Config& config, const std::atomic<bool>& stop) {
  const Bundle bundle = load_bundle(config.bundle, config.public_key);
  const Credentials credentials = load_credentials(config.ca, config.cert, config.key, config.camera_id);
  std::signal(SIGPIPE, SIG_IGN);
  const size_t packed = kernels::Mapping(bundle.release).packed_bytes(), payload = payload_size(packed);
  const Pipe records, answers, isolation, fetch_error;
  Child fetcher, seer;
  int stream = -1;
  if (is_remote(config.source)) {
    const Pipe compressed;
    fetcher.pid = spawn([&] {
      close_all_but({compressed.write, fetch_error.write});
      forbid_inspection(true);
      give_up_inspecting();
      return fetch(config.source, int(config.source_timeout_s), compressed.write, fetch_error.write);
    });
    ::close(compressed.write);
    stream = compressed.read;
  }
  seer.pid = spawn([&] {
    close_all_but({records.write, answers.read, isolation.write, stream});
    forbid_inspection(true);
    const std::string missing = isolate_before_start();
    (void)!::write(isolation.write, missing.data(), missing.size());
    ::close(isolation.write);
    RecordPipe pipe(answers.read, records.write, payload);
    return int(see(config, bundle, pipe, stream, stop));
  });
  for (const int fd : {records.write, answers.read, isolation.write, fetch_error.write, stream})
    if (fd >= 0) ::close(fd);
  // After the last fork: this process may not look into the others from here on.
  give_up_inspecting();
  char missing[256] = {};
  if (::read(isolation.read, missing, sizeof missing - 1) > 0)
    spdlog::warn("isolation: this kernel or user does not allow: {}", missing);
  RecordPipe pipe(records.read, answers.write, payload);
  Keeper keeper(config, bundle, credentials, pipe, packed, seer.pid, stop);
  return keeper.run([&] {
    char why[512] = {};
    ::fcntl(fetch_error.read, F_SETFL, O_NONBLOCK);
    return ::read(fetch_error.read, why, sizeof why - 1) > 0 ? std::string(why) : std::string();
  });
}

}  // namespace ruyicam::edge
