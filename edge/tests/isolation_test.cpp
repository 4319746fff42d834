#include "isolation.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include "error.hpp"
#include "temporary.hpp"

using namespace ruyicam::edge;

namespace {

// Runs `body` in a child and returns the text that it writes to its descriptor, and how it ended.
std::pair<std::string, int> in_child(const std::function<void(int)>& body) {
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("no pipe");
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    try {
      body(ends[1]);
    } catch (const std::exception& error) {
      (void)!::write(ends[1], error.what(), std::strlen(error.what()));
    }
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char bytes[4096];
  for (ssize_t got; (got = ::read(ends[0], bytes, sizeof bytes)) > 0;) text.append(bytes, size_t(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return {text, status};
}

// Emulators of other processors have no filters of their own.
#define SKIP_WITHOUT_SECCOMP() \
  if (::prctl(PR_GET_SECCOMP) < 0) GTEST_SKIP() << "this system has no seccomp (an emulated processor?)"

void isolate() {
  forbid_inspection(true);
  isolate_before_start();
  isolate_for_good();
}

struct Door {
  const char* name;
  std::function<bool()> open;  // true: it went through
};

std::vector<Door> doors(const std::string& folder, pid_t parent) {
  const auto got = [](long result) { return result >= 0; };
  static char page[4096];
  static const std::string file = folder + "/new", there = folder + "/there";
  static const pid_t other = parent;
  return {
      {"socket", [=] { return got(::socket(AF_INET, SOCK_STREAM, 0)); }},
      {"unix socket", [=] { return got(::socket(AF_UNIX, SOCK_STREAM, 0)); }},
      {"netlink", [=] { return got(::socket(AF_NETLINK, SOCK_RAW, 0)); }},
      // Pairs without a name are let be, but nothing is passed over them.
      {"message over a pair", [=] { int e[2]; msghdr m{}; return ::socketpair(AF_UNIX, SOCK_STREAM, 0, e) == 0 && got(::sendmsg(e[0], &m, 0)); }},
      {"sending over a pair", [=] { int e[2]; return ::socketpair(AF_UNIX, SOCK_STREAM, 0, e) == 0 && got(::send(e[0], page, 1, 0)); }},
      {"open for writing", [=] { return got(::open(there.c_str(), O_WRONLY)); }},
      {"open for both", [=] { return got(::open(there.c_str(), O_RDWR)); }},
      {"create", [=] { return got(::open(file.c_str(), O_WRONLY | O_CREAT, 0600)); }},
      {"create by openat", [=] { return got(syscall(SYS_openat, AT_FDCWD, file.c_str(), O_WRONLY | O_CREAT, 0600)); }},
      {"create read-only", [=] { return got(::open(file.c_str(), O_RDONLY | O_CREAT, 0600)); }},
      {"append", [=] { return got(::open(there.c_str(), O_RDONLY | O_APPEND)); }},
      {"truncate on open", [=] { return got(::open(there.c_str(), O_RDONLY | O_TRUNC)); }},
      {"unnamed file", [=] { return got(::open(folder.c_str(), O_TMPFILE | O_WRONLY, 0600)); }},
      {"openat2", [=] { uint64_t how[3] = {O_WRONLY, 0, 0}; return got(syscall(SYS_openat2, AT_FDCWD, there.c_str(), how, sizeof how)); }},
      {"truncate", [=] { return got(::truncate(there.c_str(), 3)); }},
      {"mkdir", [=] { return got(::mkdir((folder + "/d").c_str(), 0700)); }},
      {"rename", [=] { return got(::rename(there.c_str(), file.c_str())); }},
      {"link", [=] { return got(::link(there.c_str(), file.c_str())); }},
      {"symlink", [=] { return got(::symlink("x", file.c_str())); }},
      {"fifo", [=] { return got(::mkfifo(file.c_str(), 0600)); }},
      {"unlink", [=] { return got(::unlink(there.c_str())); }},
      {"chmod", [=] { return got(::chmod(there.c_str(), 0640)); }},
      {"file times", [=] { return got(::utimensat(AT_FDCWD, there.c_str(), nullptr, 0)); }},
      {"extended attribute", [=] { return got(::setxattr(there.c_str(), "user.x", "1", 1, 0)); }},
      {"file lock", [=] { struct flock l = {}; l.l_type = F_RDLCK; return got(::fcntl(0, F_SETLK, &l)); }},
      {"ptrace", [=] { return got(ptrace(PTRACE_ATTACH, other, nullptr, nullptr)); }},
      {"other's memory", [=] { return got(::open(("/proc/" + std::to_string(other) + "/mem").c_str(), O_RDWR)); }},
      {"process_vm_writev", [=] { iovec v{page, 1}; return got(process_vm_writev(other, &v, 1, &v, 1, 0)); }},
      {"shmget", [=] { return got(::shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600)); }},
      {"shm_open", [=] { return got(::shm_open("/ruyicam-door", O_CREAT | O_RDWR, 0600)); }},
      {"memfd", [=] { return got(::memfd_create("x", 0)); }},
      {"message queue", [=] { return got(::msgget(IPC_PRIVATE, IPC_CREAT | 0600)); }},
      {"posix queue", [=] { return got(syscall(SYS_mq_open, "x", O_CREAT | O_RDWR, 0600, nullptr)); }},
      {"keyring", [=] { return got(syscall(SYS_add_key, "user", "x", "y", 1, -3)); }},
      {"signal", [=] { return got(::kill(other, SIGUSR1)); }},
      {"signal with data", [=] { sigval v{}; return got(::sigqueue(other, SIGUSR1, v)); }},
      {"fork", [=] { const pid_t p = ::fork(); if (p == 0) ::_exit(0); return got(p); }},
      {"clone3", [=] { return got(syscall(SYS_clone3, page, 64)); }},
      {"exec", [=] { char* args[] = {nullptr}; return got(::execv("/bin/true", args)); }},
      {"io_uring", [=] { io_uring_params p = {}; return got(syscall(SYS_io_uring_setup, 1, &p)); }},
      {"splice to a pipe", [=] { return got(syscall(SYS_vmsplice, 1, nullptr, 0, 0)); }},
      {"core files again", [=] { rlimit l{4096, 4096}; return got(::setrlimit(RLIMIT_CORE, &l)); }},
      {"dumpable again", [=] { return got(::prctl(PR_SET_DUMPABLE, 1)); }},
      {"bpf", [=] { return got(syscall(SYS_bpf, 0, page, 64)); }},
      {"perf", [=] { return got(syscall(SYS_perf_event_open, page, 0, -1, -1, 0)); }},
      {"unshare", [=] { return got(::unshare(CLONE_NEWUSER)); }},
      {"pidfd_getfd", [=] { return got(syscall(SYS_pidfd_open, other, 0)); }},
      {"host name", [=] { return got(::sethostname("x", 1)); }},
  };
}

}  // namespace

TEST(Isolation, EveryDoorIsShut) {
  SKIP_WITHOUT_SECCOMP();
  TemporaryFolder folder;
  { std::ofstream(folder.path / "there") << "abc"; }
  const pid_t parent = ::getpid();
  const auto all = doors(folder.path.string(), parent);
  // First without isolation, or a door that is never open would prove nothing. exec and fork would end or double the child.
  std::string never;
  for (const Door& door : all) {
    if (std::string(door.name) == "exec" || std::string(door.name) == "ptrace" || std::string(door.name).starts_with("signal")) continue;
    const auto [text, status] = in_child([&](int out) {
      // Names and queues of its own, or this machine would keep what goes through; without them those doors are not tried.
      const bool own = ::unshare(CLONE_NEWUTS | CLONE_NEWIPC) == 0;
      const std::string name = door.name;
      const bool global = name == "host name" || name == "shmget" || name == "message queue";
      (void)!::write(out, (own || !global) && door.open() ? "y" : "n", 1);
    });
    if (text != "y") never += std::string(door.name) + ", ";
    for (const char* made : {"new", "d"}) std::filesystem::remove(folder.path / made);
    { std::ofstream(folder.path / "there") << "abc"; }
  }
  ::shm_unlink("/ruyicam-door");
  std::cout << "open to nobody here even without isolation: " << never << "\n";
  EXPECT_LT(std::count(never.begin(), never.end(), ','), 16) << never;
  const auto [text, status] = in_child([&](int out) {
    isolate();
    std::string open;
    for (const Door& door : all)
      if (door.open()) open += std::string(door.name) + ", ";
    (void)!::write(out, open.data(), open.size());
    (void)!::write(out, "end", 3);
  });
  EXPECT_EQ(text, "end");
  EXPECT_TRUE(WIFEXITED(status));
}

TEST(Isolation, ThreadsThatRunAlreadyAreIsolatedToo) {
  SKIP_WITHOUT_SECCOMP();
  const auto [text, status] = in_child([](int out) {
    forbid_inspection(true);
    isolate_before_start();
    std::atomic<int> step{0};
    std::thread earlier([&] {
      while (step == 0) std::this_thread::yield();
      (void)!::write(out, ::socket(AF_INET, SOCK_STREAM, 0) < 0 ? "shut" : "open", 4);
      step = 2;
    });
    isolate_for_good();
    step = 1;
    earlier.join();
    // What the work needs goes on: threads, memory, reading, the clock.
    std::thread([] {}).join();
    std::vector<char> memory(1 << 24, 1);
    const int fd = ::open("/proc/self/status", O_RDONLY);
    (void)!::write(out, fd >= 0 && ::read(fd, memory.data(), 100) > 0 ? " works" : " broken", 6);
  });
  EXPECT_EQ(text, "shut works");
}

TEST(Isolation, NoCoreFile) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer takes the signal";
#endif
  SKIP_WITHOUT_SECCOMP();
  TemporaryFolder folder;
  const auto [text, status] = in_child([&](int) {
    (void)!::chdir(folder.path.c_str());
    isolate();
    ::raise(SIGSEGV);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(WCOREDUMP(status));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path));
}

TEST(Isolation, NeighboursMayNotLookInside) {
  SKIP_WITHOUT_SECCOMP();
  // A child that is isolated and waits; another that has given up inspecting, of the same user, tries its doors.
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t seer = ::fork();
  if (seer == 0) {
    isolate();
    (void)!::write(ready[1], "r", 1);
    for (;;) ::pause();
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  const auto attempt = [&](bool give_up) {
    return in_child([&](int out) {
             if (give_up) {
               forbid_inspection(true);
               give_up_inspecting(true);
             }
             char got[8];
             iovec here{got, sizeof got}, far{reinterpret_cast<void*>(&doors), sizeof got};
             const std::string proc = "/proc/" + std::to_string(seer);
             std::string open;
             if (::open((proc + "/mem").c_str(), O_RDONLY) >= 0) open += "mem ";
             if (::open((proc + "/maps").c_str(), O_RDONLY) >= 0) open += "maps ";
             if (::open((proc + "/fd/0").c_str(), O_RDONLY) >= 0) open += "fd ";
             if (process_vm_readv(seer, &here, 1, &far, 1, 0) >= 0) open += "vm ";
             if (ptrace(PTRACE_ATTACH, seer, nullptr, nullptr) == 0) open += "ptrace ";
             (void)!::write(out, open.data(), open.size());
           }).first;
  };
  EXPECT_EQ(attempt(true), "");
  // With root's capabilities they are open, so the test can fail.
  if (::geteuid() == 0) EXPECT_NE(attempt(false), "");
  ::kill(seer, SIGKILL);
  ::waitpid(seer, nullptr, 0);
}
