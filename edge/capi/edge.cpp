#include "ruyicam/edge.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "frame_header.hpp"

extern char** environ;

using ruyicam::edge::FrameHeader;

struct ruyicam_edge {
  std::string config, program, stats;
  bool push = false;
  pid_t pid = -1;
  int frames = -1;  // our end
  int exit_code = -1;
};

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTheirs = 3;       // the descriptor of frames in the device
constexpr int kRestart = 10;     // its exit code when it is to be started again
constexpr int kTakes_ms = 1000;  // to read a frame that it has begun to read

void say(char* message, size_t size, const std::string& text) {
  if (message && size > 0) std::snprintf(message, size, "%s", text.c_str());
}

void close_frames(ruyicam_edge& d) {
  if (d.frames >= 0) ::close(d.frames);
  d.frames = -1;
}

// 0 or an error number.
int spawn(ruyicam_edge& d) {
  int ends[2] = {-1, -1};
  // A pair of sockets and no pipe: writing to one whose reader is gone can be told not to raise a signal.
  if (d.push && ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return errno;
  std::vector<std::string> words = {d.program, "--config", d.config};
  if (d.push) words.insert(words.end(), {"--source", "frames:" + std::to_string(kTheirs), "--source_retry", "never"});
  if (!d.stats.empty()) words.insert(words.end(), {"--stats", d.stats});
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // Duplicated, it has no close-on-exec; onto itself it would keep it.
  int theirs = ends[1];
  if (theirs == kTheirs) theirs = ::fcntl(ends[1], F_DUPFD_CLOEXEC, kTheirs + 1);
  if (d.push) posix_spawn_file_actions_adddup2(&actions, theirs, kTheirs);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // The program's own signal settings are not the device's.
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const int problem = ::posix_spawnp(&d.pid, d.program.c_str(), &actions, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (theirs >= 0 && theirs != ends[1]) ::close(theirs);
  if (ends[1] >= 0) ::close(ends[1]);
  d.frames = ends[0];
  if (problem != 0) {
    close_frames(d);
    d.pid = -1;
  }
  return problem;
}

// Notes that it has ended. True: it has.
bool reap(ruyicam_edge& d, int flags) {
  if (d.pid < 0) return true;
  int status = 0;
  pid_t got;
  while ((got = ::waitpid(d.pid, &status, flags)) < 0 && errno == EINTR) continue;
  if (got == 0) return false;
  d.exit_code = got < 0 ? 1 : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  d.pid = -1;
  close_frames(d);
  return true;
}

bool writable(int fd, int timeout_ms) {
  pollfd waiting{fd, POLLOUT, 0};
  return ::poll(&waiting, 1, timeout_ms) == 1 && (waiting.revents & POLLOUT);
}

// False: the device is gone, or took too long.
bool send_all(int fd, const uint8_t* bytes, size_t size) {
  const auto until = Clock::now() + std::chrono::milliseconds(kTakes_ms);
  while (size > 0) {
    const ssize_t sent = ::send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (sent > 0) {
      bytes += sent;
      size -= size_t(sent);
    } else if (Clock::now() > until) {
      return false;
    } else {
      writable(fd, 20);
    }
  }
  return true;
}

}  // namespace

uint32_t ruyicam_edge_abi(void) { return RUYICAM_EDGE_ABI; }

ruyicam_edge_status ruyicam_edge_start(const ruyicam_edge_options* o, ruyicam_edge** device, char* message, size_t size) {
  say(message, size, "");
  if (!device || !o || o->struct_size < sizeof *o || !o->config) {
    say(message, size, "options, its struct_size, config or device is missing");
    return RUYICAM_EDGE_INVALID;
  }
  if (o->push_frames != 0 && o->push_frames != 1) {
    say(message, size, "push_frames is " + std::to_string(o->push_frames) + ", expected 0 or 1");
    return RUYICAM_EDGE_INVALID;
  }
  try {
    auto* d = new ruyicam_edge{o->config, o->program ? o->program : "ruyicam-edge", o->stats ? o->stats : "", o->push_frames == 1};
    if (const int problem = spawn(*d); problem != 0) {
      say(message, size, d->program + ": " + std::strerror(problem));
      delete d;
      return RUYICAM_EDGE_SYSTEM;
    }
    *device = d;
    return RUYICAM_EDGE_OK;
  } catch (const std::bad_alloc&) {
    say(message, size, "no memory left");
    return RUYICAM_EDGE_SYSTEM;
  }
}

ruyicam_edge_status ruyicam_edge_check(ruyicam_edge* d) {
  if (!d) return RUYICAM_EDGE_INVALID;
  if (!reap(*d, WNOHANG)) return RUYICAM_EDGE_OK;
  if (d->exit_code != kRestart) return RUYICAM_EDGE_ENDED;
  d->exit_code = -1;
  if (spawn(*d) == 0) return RUYICAM_EDGE_OK;
  d->exit_code = kRestart;
  return RUYICAM_EDGE_SYSTEM;
}

ruyicam_edge_status ruyicam_edge_push(ruyicam_edge* d, const uint8_t* luma, int32_t width, int32_t height, ptrdiff_t stride, uint64_t time_ns) {
  const auto side = [](int32_t n) { return n >= int32_t(FrameHeader::kLeastSide) && n <= int32_t(FrameHeader::kMostSide); };
  if (!d || !d->push || !luma || !side(width) || !side(height) || stride < width) return RUYICAM_EDGE_INVALID;
  if (const auto status = ruyicam_edge_check(d); status != RUYICAM_EDGE_OK) return status;
  // What lies unread is older than this frame; a device that keeps up has read it.
  if (!writable(d->frames, 0)) return RUYICAM_EDGE_BUSY;
  const FrameHeader head{.width = uint32_t(width), .height = uint32_t(height), .time_ns = time_ns};
  bool sent = send_all(d->frames, reinterpret_cast<const uint8_t*>(&head), sizeof head);
  for (int32_t y = 0; sent && y < height; ++y) sent = send_all(d->frames, luma + y * stride, size_t(width));
  if (sent) return RUYICAM_EDGE_OK;
  // Half a frame cannot be followed by another.
  ruyicam_edge_stop(d, kTakes_ms);
  return ruyicam_edge_check(d) == RUYICAM_EDGE_OK ? RUYICAM_EDGE_BUSY : RUYICAM_EDGE_ENDED;
}

int ruyicam_edge_exit_code(const ruyicam_edge* d) { return d ? d->exit_code : -1; }

int ruyicam_edge_stop(ruyicam_edge* d, int32_t timeout_ms) {
  if (!d) return 0;
  if (reap(*d, WNOHANG)) return d->exit_code;
  // With frames their end is the end; without, it is asked.
  if (d->push)
    close_frames(*d);
  else
    ::kill(d->pid, SIGTERM);
  const auto until = Clock::now() + std::chrono::milliseconds(timeout_ms);
  while (!reap(*d, WNOHANG)) {
    if (Clock::now() > until) {
      ::kill(d->pid, SIGKILL);
      reap(*d, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return d->exit_code;
}

void ruyicam_edge_free(ruyicam_edge* d) {
  if (!d) return;
  ruyicam_edge_stop(d, 5000);
  delete d;
}
