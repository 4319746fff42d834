#include "updater.hpp"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <sodium.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>

#include "files.hpp"
#include "ruyicam/v1/uplink.grpc.pb.h"

namespace ruyicam::edge {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFiles[] = {"manifest.json", "manifest.sig", "edge.onnx", "mapping.safetensors"};
constexpr uint64_t kLargest = 256u << 20;
// Long enough for a large bundle on a bad link.
constexpr std::chrono::seconds kPatience = std::chrono::hours(2), kShortPatience{60};
constexpr int64_t kFirstLook_ms = 5000;

// One file of a bundle that comes in pieces.
class Writer {
 public:
  explicit Writer(const fs::path& path) : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) {
    if (fd_ < 0) throw_storage("cannot write", path);
  }
  ~Writer() { ::close(fd_); }
  Writer(const Writer&) = delete;
  void write(const std::string& bytes) {
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t wrote = ::write(fd_, bytes.data() + done, bytes.size() - done);
      if (wrote < 0) throw_storage("cannot write", path_);
      done += size_t(wrote);
    }
  }

 private:
  fs::path path_;
  int fd_;
};

}  // namespace

struct Updater::Call {
  grpc::ClientContext context;
};

Updater::Updater(const Config& config, CredentialFiles& credentials, Slots& slots)
    : config_(config), credentials_(credentials), slots_(slots), thread_([this] { run(); }) {}

Updater::~Updater() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    if (call_) call_->context.TryCancel();
  }
  changed_.notify_all();
  thread_.join();
}

// What is wrong in one place, a stick that stays plugged in say, does not keep from looking in the other.
bool Updater::look() {
  std::string problem;
  const auto tried = [&](bool (Updater::*look_there)()) {
    try {
      return (this->*look_there)();
    } catch (const std::exception& error) {
      problem += (problem.empty() ? "" : "; ") + std::string(error.what());
      return false;
    }
  };
  const bool found = (!config_.update_folder.empty() && tried(&Updater::look_in_folder)) || tried(&Updater::look_on_server);
  const std::lock_guard lock(mutex_);
  if (!found && !stop_ && !problem.empty() && problem != last_problem_) spdlog::warn("update: {}", problem);
  last_problem_ = problem;
  return found;
}

void Updater::run() {
  // Not all devices of a site at once.
  int64_t wait_ms = std::min(config_.update_every_s * 1000, kFirstLook_ms);
  std::unique_lock lock(mutex_);
  while (true) {
    wait_ms -= int64_t(randombytes_uniform(uint32_t(std::min<int64_t>(wait_ms / 4, 1 << 30) + 1)));
    if (changed_.wait_for(lock, std::chrono::milliseconds(wait_ms), [&] { return stop_; })) return;
    lock.unlock();
    installed_ = look();
    lock.lock();
    if (installed_) return;
    wait_ms = config_.update_every_s * 1000;
  }
}

template <class Use>
auto Updater::call(std::chrono::seconds patience, Use use) {
  const auto credentials = credentials_.current();
  const auto channel = grpc::CreateChannel(config_.server, grpc::SslCredentials({credentials->ca, credentials->key, credentials->cert}));
  const auto stub = v1::Uplink::NewStub(channel);
  Call call;
  call.context.set_deadline(std::chrono::system_clock::now() + patience);
  {
    const std::lock_guard lock(mutex_);
    call_ = &call;
    if (stop_) call.context.TryCancel();
  }
  struct Done {
    Updater& u;
    ~Done() {
      const std::lock_guard lock(u.mutex_);
      u.call_ = nullptr;
    }
  } done{*this};
  return use(*stub, call.context);
}

bool Updater::server_knows(const Bundle& bundle) {
  return call(kShortPatience, [&](v1::Uplink::Stub& stub, grpc::ClientContext& context) {
    v1::BundleRequest request;
    request.set_bundle_id(bundle.id.data(), bundle.id.size());
    v1::BundleKnown reply;
    const grpc::Status status = stub.Knows(&context, request, &reply);
    if (!status.ok()) throw Error(Exit::kUndelivered, "the server cannot be asked whether it knows bundle " + bundle.name + " " + bundle.version + ": " + status.error_message());
    return reply.known();
  });
}

bool Updater::look_in_folder() {
  std::error_code ignored;
  std::optional<std::pair<Bundle, fs::path>> best;
  for (const auto& entry : fs::directory_iterator(config_.update_folder, ignored)) {
    if (entry.path().extension() != ".ruyicam") continue;
    try {
      Bundle found = load_bundle(entry.path(), config_.public_key);
      if (slots_.unwanted(found, true).empty() && (!best || found.serial > best->first.serial)) best.emplace(std::move(found), entry.path());
    } catch (const Error& error) {
      spdlog::warn("update: {}", error.what());
    }
  }
  if (!best) return false;
  // Its packets would be refused, and those behind them would wait.
  if (!server_knows(best->first))
    throw Error(Exit::kBundle, "the server does not know bundle " + best->second.string() + "; it is installed once it does");
  const fs::path staged = slots_.staging();
  for (const char* name : kFiles) Writer(staged / name).write(read_file(best->second / name, Exit::kBundle, kLargest));
  slots_.install(true);
  return true;
}

bool Updater::look_on_server() {
  return call(kPatience, [&](v1::Uplink::Stub& stub, grpc::ClientContext& context) {
    const Bundle& now = slots_.bundle();
    v1::BundleRequest request;
    request.set_bundle_id(now.id.data(), now.id.size());
    const auto stream = stub.Fetch(&context, request);
    v1::BundlePart part;
    std::optional<fs::path> staged;
    std::map<std::string, Writer> files;
    uint64_t total = 0;
    while (stream->Read(&part)) {
      if (std::find(std::begin(kFiles), std::end(kFiles), part.file()) == std::end(kFiles))
        throw Error(Exit::kBundle, "the server sends a file that belongs to no bundle");
      if ((total += part.data().size()) > kLargest) throw Error(Exit::kBundle, "the server sends more than a bundle may have");
      if (!staged) staged = slots_.staging();
      files.try_emplace(part.file(), *staged / part.file()).first->second.write(part.data());
    }
    files.clear();
    const grpc::Status status = stream->Finish();
    // A server of an older version has no such call.
    if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) return false;
    if (!status.ok()) throw Error(Exit::kUndelivered, "the server's bundle could not be fetched: " + status.error_message());
    if (!staged) return false;
    slots_.install(false);
    return true;
  });
}

}  // namespace ruyicam::edge
