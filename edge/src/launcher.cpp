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
#include "seeing.hpp"

namespace ruyicam::edge {
namespace {

constexpr const char* kMissing = "isolation: this kernel or user does not allow: ";

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
void close_all_but(const std::vector<int>& kept) {
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
  // A camera's ends of pipes, and what runs for it.
  struct Camera {
    Config config;
    int records = -1, answers = -1, from_eye = -1, to_model = -1;
    pid_t seer = -1, fetcher = -1;
    int fetch_error = -1;
    uint64_t runs = 0;
    // How its last process ended; to be said behind all that it said itself.
    RecordHead gone{};
    std::string why{};
    bool to_say = false;
  };

  Process(const Config& config, const Bundle& bundle, size_t payload, const std::atomic<bool>& stop, int commands, std::vector<Camera> cameras)
      : config_(config), bundle_(bundle), payload_(payload), stop_(stop), commands_(commands), cameras_(std::move(cameras)) {}

  int run() {
    std::vector<int> kept{commands_};
    for (const Camera& c : cameras_)
      kept.insert(kept.end(), {c.records, c.answers, c.from_eye, c.to_model, pushed_fd(c.config.source).value_or(-1)});
    close_all_but(kept);
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
      constexpr timespec kSoon{0, 20000000};
      if (::ppoll(&waiting, 1, say_gone() ? nullptr : &kSoon, &usual_) > 0) {
        Command command;
        const ssize_t got = ::read(commands_, &command, sizeof command);
        if (got != ssize_t(sizeof command) || command.camera >= cameras_.size()) break;
        obey(command.order, cameras_[command.camera], command.epoch);
      }
      reap();
    }
    for (Camera& c : cameras_) stop_camera(c);
    end(model_);
    return 0;
  }

 private:
  bool several() const { return cameras_.size() > 1; }

  void obey(Order order, Camera& c, const Epoch& epoch) {
    if (order == Order::kStart) return start(c, epoch);
    if (c.seer > 0) {
      ::kill(c.seer, order == Order::kKill ? SIGKILL : SIGTERM);
    } else if (order == Order::kKill && model_ > 0) {
      // Its end was said, and does not come through.
      end(model_);
      model_gone(SIGKILL);
    }
  }

  void stop_camera(Camera& c) {
    end(c.seer);
    end(c.fetcher);
    if (c.fetch_error >= 0) ::close(std::exchange(c.fetch_error, -1));
  }

  void start(Camera& c, const Epoch& epoch) {
    stop_camera(c);
    c.to_say = false;
    ++c.runs;
    int stream = -1;
    if (is_remote(c.config.source)) {
      const Pipe compressed, error;
      c.fetcher = spawn([&] {
        close_all_but({compressed.write, error.write});
        restore_signals();
        forbid_inspection(true);
        give_up_inspecting(true);
        return fetch(c.config.source, int(c.config.source_timeout_s), compressed.write, error.write);
      });
      ::close(compressed.write);
      ::close(error.write);
      stream = compressed.read;
      c.fetch_error = error.read;
    }
    if (several() && model_ <= 0) start_model();
    if (!several()) discard_answers(c);
    const int pushed = pushed_fd(c.config.source).value_or(-1);
    c.seer = spawn([&] {
      const auto begin = [&](auto& out, const std::string& engines) {
        restore_signals();
        forbid_inspection(true);
        const std::string missing = isolate_before_start(engines);
        if (!missing.empty()) out.write_text({.type = RecordType::kNotice}, kMissing + missing);
      };
      if (several()) {
        close_all_but({c.to_model, stream, pushed});
        InputWriter out(c.to_model);
        begin(out, "");
        return int(watch(c.config, bundle_, out, stream, epoch, stop_));
      }
      close_all_but({c.records, c.answers, stream, pushed});
      RecordPipe pipe(c.answers, c.records, payload_);
      begin(pipe, engines());
      return int(see(c.config, bundle_, pipe, stream, epoch, stop_));
    });
    if (stream >= 0) ::close(stream);
  }

  void start_model() {
    for (Camera& c : cameras_) {
      discard_answers(c);
      drain(c.from_eye);
    }
    model_ = spawn([&] {
      std::vector<int> kept, inputs;
      std::vector<RecordPipe> pipes;
      for (const Camera& c : cameras_) {
        kept.insert(kept.end(), {c.records, c.answers, c.from_eye});
        inputs.push_back(c.from_eye);
        pipes.emplace_back(c.answers, c.records, payload_);
      }
      close_all_but(kept);
      restore_signals();
      // It serves its cameras until they have ended.
      ::signal(SIGTERM, SIG_IGN);
      ::signal(SIGINT, SIG_IGN);
      forbid_inspection(true);
      const std::string missing = isolate_before_start(engines());
      if (!missing.empty()) pipes[0].write_text({.type = RecordType::kNotice}, kMissing + missing);
      return int(recognise(config_, bundle_, inputs, pipes));
    });
  }

  std::string engines() const { return config_.provider == "tensorrt" ? engines_of(config_) : ""; }

  // What was answered to the process before is not this one's.
  static void discard_answers(const Camera& c) {
    char stale[64];
    ::fcntl(c.answers, F_SETFL, O_NONBLOCK);
    while (::read(c.answers, stale, sizeof stale) > 0) continue;
    ::fcntl(c.answers, F_SETFL, 0);
  }

  void restore_signals() {
    ::signal(SIGCHLD, SIG_DFL);
    ::sigprocmask(SIG_SETMASK, &usual_, nullptr);
  }

  static void has_ended(Camera& c, int status, const std::string& why) {
    c.gone = {.type = RecordType::kGone, .kind = uint32_t(WIFEXITED(status) ? WEXITSTATUS(status) : 0), .number = c.runs,
              .token = uint32_t(WIFSIGNALED(status) ? WTERMSIG(status) : 0)};
    c.why = why;
    c.to_say = true;
  }

  // Without it the cameras' processes are of no use; and what it was told last may not have come through.
  void model_gone(int status) {
    model_ = -1;
    for (Camera& c : cameras_) {
      if (c.seer > 0) {
        stop_camera(c);
        has_ended(c, status, "");
      }
      c.to_say = c.runs > 0;
    }
  }

  void reap() {
    int status = 0;
    pid_t pid;
    while ((pid = ::waitpid(-1, &status, WNOHANG)) > 0) {
      if (pid == model_) model_gone(status);
      for (Camera& c : cameras_) {
        if (pid == c.fetcher) c.fetcher = -1;
        if (pid == c.seer) seer_gone(c, status);
      }
    }
  }

  void seer_gone(Camera& c, int status) {
    c.seer = -1;
    std::string why;
    if (c.fetch_error >= 0) {
      // What it had to say it has written before the stream ended.
      char line[512];
      ::fcntl(c.fetch_error, F_SETFL, O_NONBLOCK);
      if (const ssize_t got = ::read(c.fetch_error, line, sizeof line); got > 0) why.assign(line, size_t(got));
    }
    stop_camera(c);
    has_ended(c, status, why);
  }

  // Where a process with the model lives it says so, when it has said all that it got. True: all is said.
  bool say_gone() {
    bool all = true;
    for (Camera& c : cameras_) {
      if (c.to_say)
        c.to_say = model_ > 0 ? !InputWriter(c.to_model).try_write(c.gone, c.why) : !RecordPipe(-1, c.records, payload_).write_text(c.gone, c.why);
      all = all && !c.to_say;
    }
    return all;
  }

  const Config& config_;
  const Bundle& bundle_;
  size_t payload_;
  const std::atomic<bool>& stop_;
  int commands_;
  pid_t model_ = -1;
  std::vector<Camera> cameras_;
  sigset_t usual_{};
};

Launcher::Launcher(const Config& config, const Bundle& bundle, size_t payload, const std::atomic<bool>& stop) {
  // Whole or not at all, also when its writer is killed.
  if (sizeof(RecordHead) + payload > PIPE_BUF)
    throw Error(Exit::kBundle, "the bundle's features take " + std::to_string(payload) + " bytes a tick, at most " +
                                   std::to_string(PIPE_BUF - sizeof(RecordHead)) + " can be handed on");
  const Pipe commands;
  std::vector<int> theirs{commands.read};
  std::vector<Process::Camera> cameras;
  const auto each = each_camera(config);
  for (const Config& camera : each) {
    const Pipe records, answers;
    cameras.push_back({camera, records.write, answers.read});
    pipes_.emplace_back(records.read, answers.write, payload);
    theirs.insert(theirs.end(), {records.write, answers.read});
    if (each.size() == 1) continue;
    const InputPair inputs(kernels::Preprocessor(bundle.preprocess).output_size());
    cameras.back().from_eye = inputs.read;
    cameras.back().to_model = inputs.write;
    theirs.insert(theirs.end(), {inputs.read, inputs.write});
  }
  // The frames are that process's alone.
  for (const Config& camera : each)
    if (const auto frames = pushed_fd(camera.source)) theirs.push_back(*frames);
  child_ = spawn([&] { return Process(config, bundle, payload, stop, commands.read, std::move(cameras)).run(); });
  for (const int fd : theirs) ::close(fd);
  commands_ = commands.write;
}

Launcher::~Launcher() {
  pid_t child = child_;
  end(child);
  ::close(commands_);
}

void Launcher::command(Order order, size_t camera, const Epoch& epoch) {
  const Command command{order, uint32_t(camera), epoch};
  if (::write(commands_, &command, sizeof command) != ssize_t(sizeof command))
    throw Error(Exit::kInternal, "the process that starts the others is gone");
}

}  // namespace ruyicam::edge
