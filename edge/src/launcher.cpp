#include "launcher.hpp"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "capture.hpp"
#include "error.hpp"
#include "isolation.hpp"
#include "pushed.hpp"
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

void end(pid_t& pid) {
  if (pid <= 0) return;
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  pid = -1;
}

}  // namespace

// What the forked process does.
class Launcher::Process {
 public:
  Process(const Config& config, const Bundle& bundle, size_t payload, const std::atomic<bool>& stop, int commands, int records, int answers)
      : config_(config), bundle_(bundle), payload_(payload), stop_(stop), commands_(commands), records_(records), answers_(answers) {}

  int run() {
    close_all_but({commands_, records_, answers_, pushed_fd(config_.source).value_or(-1)});
    forbid_inspection(true);
    give_up_inspecting(false);
    // A child's end wakes ppoll, and nothing else is to be interrupted by it.
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &child, &usual_);
    struct sigaction wake {};
    wake.sa_handler = [](int) {};
    ::sigaction(SIGCHLD, &wake, nullptr);
    pollfd waiting{commands_, POLLIN, 0};
    while (true) {
      if (::ppoll(&waiting, 1, nullptr, &usual_) > 0) {
        Command command;
        const ssize_t got = ::read(commands_, &command, sizeof command);
        if (got != ssize_t(sizeof command)) break;
        if (command.order == Order::kStart)
          start(command.epoch);
        else if (seer_ > 0)
          ::kill(seer_, command.order == Order::kKill ? SIGKILL : SIGTERM);
      }
      reap();
    }
    end(seer_);
    end(fetcher_);
    return 0;
  }

 private:
  void start(const Epoch& epoch) {
    end(seer_);
    end(fetcher_);
    if (fetch_error_ >= 0) ::close(std::exchange(fetch_error_, -1));
    // What was answered to the one before is not this one's.
    char stale[64];
    ::fcntl(answers_, F_SETFL, O_NONBLOCK);
    while (::read(answers_, stale, sizeof stale) > 0) continue;
    ::fcntl(answers_, F_SETFL, 0);
    int stream = -1;
    if (is_remote(config_.source)) {
      const Pipe compressed, error;
      fetcher_ = spawn([&] {
        close_all_but({compressed.write, error.write});
        restore_signals();
        forbid_inspection(true);
        give_up_inspecting(true);
        return fetch(config_.source, int(config_.source_timeout_s), compressed.write, error.write);
      });
      ::close(compressed.write);
      ::close(error.write);
      stream = compressed.read;
      fetch_error_ = error.read;
    }
    seer_ = spawn([&] {
      close_all_but({records_, answers_, stream, pushed_fd(config_.source).value_or(-1)});
      restore_signals();
      forbid_inspection(true);
      RecordPipe pipe(answers_, records_, payload_);
      const std::string missing = isolate_before_start(config_.provider == "tensorrt" ? engines_of(config_) : "");
      if (!missing.empty()) pipe.write_text({.type = RecordType::kNotice}, "isolation: this kernel or user does not allow: " + missing);
      return int(see(config_, bundle_, pipe, stream, epoch, stop_));
    });
    if (stream >= 0) ::close(stream);
  }

  void restore_signals() {
    ::signal(SIGCHLD, SIG_DFL);
    ::sigprocmask(SIG_SETMASK, &usual_, nullptr);
  }

  void reap() {
    int status = 0;
    pid_t pid;
    while ((pid = ::waitpid(-1, &status, WNOHANG)) > 0) {
      if (pid == fetcher_) fetcher_ = -1;
      if (pid != seer_) continue;
      seer_ = -1;
      std::string why;
      if (fetch_error_ >= 0) {
        // What it had to say it has written before the stream ended.
        char line[512];
        ::fcntl(fetch_error_, F_SETFL, O_NONBLOCK);
        if (const ssize_t got = ::read(fetch_error_, line, sizeof line); got > 0) why.assign(line, size_t(got));
        ::close(std::exchange(fetch_error_, -1));
      }
      end(fetcher_);
      RecordPipe(-1, records_, payload_)
          .write_text({.type = RecordType::kGone, .kind = uint32_t(WIFEXITED(status) ? WEXITSTATUS(status) : 0),
                       .token = uint32_t(WIFSIGNALED(status) ? WTERMSIG(status) : 0)}, why);
    }
  }

  const Config& config_;
  const Bundle& bundle_;
  size_t payload_;
  const std::atomic<bool>& stop_;
  int commands_, records_, answers_, fetch_error_ = -1;
  pid_t seer_ = -1, fetcher_ = -1;
  sigset_t usual_{};
};

Launcher::Launcher(const Config& config, const Bundle& bundle, size_t payload, const std::atomic<bool>& stop) : pipe_(-1, -1, payload) {
  // Whole or not at all, also when its writer is killed.
  if (sizeof(RecordHead) + payload > PIPE_BUF)
    throw Error(Exit::kBundle, "the bundle's features take " + std::to_string(payload) + " bytes a tick, at most " +
                                   std::to_string(PIPE_BUF - sizeof(RecordHead)) + " can be handed on");
  const Pipe commands, records, answers;
  child_ = spawn([&] { return Process(config, bundle, payload, stop, commands.read, records.write, answers.read).run(); });
  for (const int fd : {commands.read, records.write, answers.read}) ::close(fd);
  // The frames are that process's alone.
  if (const auto frames = pushed_fd(config.source)) ::close(*frames);
  commands_ = commands.write;
  pipe_ = RecordPipe(records.read, answers.write, payload);
}

Launcher::~Launcher() {
  pid_t child = child_;
  end(child);
  ::close(commands_);
}

void Launcher::command(Order order, const Epoch& epoch) {
  const Command command{order, epoch};
  if (::write(commands_, &command, sizeof command) != ssize_t(sizeof command))
    throw Error(Exit::kInternal, "the process that starts the others is gone");
}

}  // namespace ruyicam::edge
