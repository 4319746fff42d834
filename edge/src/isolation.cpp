#include "isolation.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <malloc.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "error.hpp"

namespace ruyicam::edge {
namespace {

constexpr const char* kHarmless[] = {
    // memory
    "brk", "madvise", "membarrier", "mincore", "mlock", "mlock2", "mmap", "mprotect", "mremap", "msync", "munlock", "munmap",
    // threads of this process
    "arch_prctl", "exit", "exit_group", "futex", "futex_waitv", "get_robust_list", "getcpu", "gettid", "restart_syscall", "rseq",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getparam", "sched_getscheduler",
    "sched_setaffinity", "sched_yield", "set_robust_list", "set_tid_address",
    // time
    "clock_getres", "clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep", "time", "timerfd_create", "timerfd_gettime",
    "timerfd_settime", "times",
    // what is open already, and descriptors that lead nowhere else
    "close", "dup", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2", "ioctl", "lseek", "pipe",
    "pipe2", "poll", "ppoll", "pread64", "preadv", "pselect6", "read", "readv", "select", "write", "writev",
    // reading files
    "access", "faccessat", "faccessat2", "fstat", "fstatfs", "getcwd", "getdents64", "lstat", "newfstatat", "readlink",
    "readlinkat", "stat", "statfs", "statx",
    // facts about the process and the machine
    "getegid", "geteuid", "getgid", "getpid", "getppid", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage", "getuid",
    "sysinfo", "uname",
    // own signals
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack"};

// Of a neighbour's calls only these are taken away.
constexpr const char* kInspecting[] = {"bpf",      "finit_module", "init_module",      "kcmp",    "open_by_handle_at", "perf_event_open",
                                       "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace"};

Error failed(const char* what) { return Error(Exit::kInternal, std::string("cannot isolate the process: ") + what + ": " + std::strerror(errno)); }

class Filter {
 public:
  explicit Filter(uint32_t default_action) : context_(seccomp_init(default_action), seccomp_release) {
    if (!context_) throw failed("seccomp");
  }
  // Calls that this processor does not have are left out.
  void rule(uint32_t action, const char* call, std::initializer_list<scmp_arg_cmp> when = {}) {
    const int number = seccomp_syscall_resolve_name(call);
    if (number < 0) return;
    if (const int error = seccomp_rule_add_array(context_.get(), action, number, unsigned(when.size()), std::data(when)); error != 0) {
      errno = -error;
      throw failed(call);
    }
  }
  void load() {
    // For threads that run already, too.
    int error = seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_TSYNC, 1);
    if (error == 0) error = seccomp_load(context_.get());
    if (error != 0) {
      errno = -error;
      throw failed("seccomp");
    }
  }

 private:
  std::unique_ptr<void, decltype(&seccomp_release)> context_;
};

// Keeps the capabilities in `kept` and drops every other for good. Without privileges there is nothing to drop.
void drop_capabilities(uint64_t kept) {
  for (int c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; ++c)
    if (!(kept >> c & 1)) prctl(PR_CAPBSET_DROP, c, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) throw failed("capabilities");
  for (int i = 0; i < 2; ++i) {
    const auto mask = uint32_t(kept >> (32 * i));
    data[i].effective &= mask;
    data[i].permitted &= mask;
    data[i].inheritable = 0;
  }
  if (syscall(SYS_capset, &header, data) != 0) throw failed("capabilities");
}

std::string registry_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME")) return std::string(cache) + "/gstreamer-1.0";
  const char* home = std::getenv("HOME");
  return std::string(home ? home : "/") + "/.cache/gstreamer-1.0";
}

// Landlock: everything may be read, nothing written but beneath `writable`. False: this kernel has none.
bool restrict_writing(std::initializer_list<std::string> writable) {
  const long abi = syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 1) return false;
  uint64_t writing = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                     LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                     LANDLOCK_ACCESS_FS_MAKE_SYM;
  // Bits of later kernels by number: the headers of the oldest system that builds this do not name them.
  constexpr uint64_t kRefer = 1u << 13, kTruncate = 1u << 14;
  if (abi >= 2) writing |= kRefer;
  if (abi >= 3) writing |= kTruncate;
  const landlock_ruleset_attr attributes{writing};
  const int rules = int(syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0));
  if (rules < 0) return false;
  for (const std::string& path : writable) {
    const int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    if (fd < 0) continue;
    const landlock_path_beneath_attr beneath{writing, fd};
    syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0);
    ::close(fd);
  }
  const bool done = syscall(SYS_landlock_restrict_self, rules, 0) == 0;
  ::close(rules);
  return done;
}

}  // namespace

void forbid_inspection(bool die_with_parent) {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) throw failed("no_new_privs");
  if (die_with_parent) prctl(PR_SET_PDEATHSIG, SIGKILL);
}

std::string isolate_before_start(const std::string& engines) {
  std::string missing;
  const auto miss = [&](const char* what) { missing += std::string(missing.empty() ? "" : ", ") + what; };
  constexpr int kSpaces = CLONE_NEWNET | CLONE_NEWIPC;
  if (unshare(kSpaces) != 0 && unshare(CLONE_NEWUSER | kSpaces) != 0) miss("namespaces");
  std::error_code ignored;
  std::filesystem::create_directories(registry_folder(), ignored);
  if (!engines.empty()) std::filesystem::create_directories(engines, ignored);
  if (!restrict_writing({registry_folder(), "/dev", engines})) miss("Landlock");
  // Pages are locked when they are first touched; without the privilege the limit would make allocation fail.
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  const bool privileged = prctl(PR_CAPBSET_READ, CAP_IPC_LOCK, 0, 0, 0) == 1 && geteuid() == 0;
  if (!(privileged || limit.rlim_cur == RLIM_INFINITY) || mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
    miss("locked memory");
  // Every pipeline brings threads of its own, and an arena each would keep what they had.
  mallopt(M_ARENA_MAX, 1);
  // What is freed is overwritten: frames, the decoder's and the encoder's buffers.
  if (mallopt(M_PERTURB, 0x5a) != 1) miss("wiping");
  return missing;
}

void isolate_for_good() {
  // Without it new memory, which is locked as it comes, would soon be refused.
  drop_capabilities(1ull << CAP_IPC_LOCK);
  const auto self = scmp_datum_t(getpid());
  Filter filter(SCMP_ACT_ERRNO(EPERM));
  for (const char* call : kHarmless) filter.rule(SCMP_ACT_ALLOW, call);
  constexpr scmp_datum_t writing = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY);
  filter.rule(SCMP_ACT_ALLOW, "open", {SCMP_A1(SCMP_CMP_MASKED_EQ, writing, 0)});
  filter.rule(SCMP_ACT_ALLOW, "openat", {SCMP_A2(SCMP_CMP_MASKED_EQ, writing, 0)});
  filter.rule(SCMP_ACT_ALLOW, "clone", {SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)});
  // Its flags lie in memory, where a filter cannot look; without it glibc takes clone.
  filter.rule(SCMP_ACT_ERRNO(ENOSYS), "clone3");
  filter.rule(SCMP_ACT_ALLOW, "tgkill", {SCMP_A0(SCMP_CMP_EQ, self)});
  // GStreamer wakes its threads through pairs without a name; what it cannot make it leaks buffers over.
  filter.rule(SCMP_ACT_ALLOW, "socketpair", {SCMP_A0(SCMP_CMP_EQ, AF_UNIX)});
  filter.rule(SCMP_ACT_ALLOW, "setpriority", {SCMP_A0(SCMP_CMP_EQ, PRIO_PROCESS), SCMP_A1(SCMP_CMP_EQ, 0)});
  filter.rule(SCMP_ACT_ALLOW, "prlimit64", {SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0)});
  for (const int command : {F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC})
    filter.rule(SCMP_ACT_ALLOW, "fcntl", {SCMP_A1(SCMP_CMP_EQ, scmp_datum_t(command))});
  for (const int option : {PR_SET_NAME, PR_GET_NAME, 0x53564d41 /* PR_SET_VMA */})
    filter.rule(SCMP_ACT_ALLOW, "prctl", {SCMP_A0(SCMP_CMP_EQ, scmp_datum_t(option))});
  filter.load();
}

void give_up_inspecting(bool capabilities_too) {
  if (capabilities_too) drop_capabilities(1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER);
  Filter filter(SCMP_ACT_ALLOW);
  for (const char* call : kInspecting) filter.rule(SCMP_ACT_ERRNO(EPERM), call);
  filter.load();
}

}  // namespace ruyicam::edge
