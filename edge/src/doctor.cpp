#include "doctor.hpp"

#include <grpcpp/grpcpp.h>
#include <spdlog/fmt/fmt.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "bundle.hpp"
#include "capture.hpp"
#include "credentials.hpp"
#include "encoder.hpp"
#include "files.hpp"
#include "launcher.hpp"
#include "ruyicam/v1/uplink.grpc.pb.h"

namespace ruyicam::edge {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto kLinkPatience = 10s;
// A certificate that ends sooner deserves a word.
constexpr int64_t kSoon_s = 14 * 86400;

double since_ms(Clock::time_point begin) { return std::chrono::duration<double, std::milli>(Clock::now() - begin).count(); }

class Report {
 public:
  void ok(const char* part, const std::string& found) { line("ok  ", part, found); }
  void note(const char* part, const std::string& found, const std::string& mend) { line("note", part, found + "; mend: " + mend); }
  void fail(const char* part, Exit code, const std::string& found, const std::string& mend) {
    line("FAIL", part, found + "; mend: " + mend);
    if (first_ == Exit::kOk) first_ = code;
  }
  Exit first() const { return first_; }
  // What follows is about that camera; empty: about the device.
  void about(const std::string& camera) { whose_ = camera.empty() ? "" : camera + ": "; }

 private:
  void line(const char* mark, const char* part, const std::string& text) {
    fmt::print("{} {:<9} {}{}\n", mark, part, whose_, text);
    std::fflush(stdout);
  }
  Exit first_ = Exit::kOk;
  std::string whose_;
};

// The camera and the doors behind it, as a run has them: until the first tick.
void check_camera(const Config& config, const Bundle& bundle, const std::atomic<bool>& stop, Report& report) {
  const auto begin = Clock::now();
  const auto until = begin + std::chrono::seconds(config.source_timeout_s) + 10s;
  Launcher launcher(config, bundle, payload_size(kernels::Mapping(bundle.release).packed_bytes()), stop);
  launcher.start(0, {});
  std::string doors, why = "no frame in time";
  bool ticked = false;
  while (Clock::now() < until && !stop && !ticked) {
    const auto record = launcher.pipe(0).read(50);
    if (!record) {
      if (launcher.pipe(0).ended()) break;
      continue;
    }
    const auto said = [&] { return std::string(record->payload.begin(), std::find(record->payload.begin(), record->payload.end(), 0)); };
    const RecordType type = record->head.type;
    if (type == RecordType::kNotice) {
      doors = said();
      doors.erase(0, doors.find(": ") + 2);  // the line names the part already
    }
    if (type == RecordType::kFailure) why = said();
    if (type == RecordType::kGone) {
      if (const auto fetch = said(); !fetch.empty()) why = fetch;
      break;
    }
    ticked = type == RecordType::kTokenWanted || type == RecordType::kFeaturesWanted || type == RecordType::kPacket || type == RecordType::kDone;
  }
  if (ticked)
    report.ok("camera", fmt::format("{} gave its first tick after {:.1f} s", shown_source(config.source), since_ms(begin) / 1000));
  else
    report.fail("camera", Exit::kSource, why, "check 'source', its cable, address and password; for v4l2 the group 'video'");
  if (doors.empty() && ticked)
    report.ok("isolation", "the process that sees frames has no network, no file to write, locked and wiped memory");
  else if (!doors.empty())
    report.note("isolation", doors, "a kernel with Landlock and user namespaces; LimitMEMLOCK=infinity (the unit file has it)");
}

std::optional<Bundle> check_model(const Config& config, Report& report) {
  try {
    Bundle bundle = load_bundle(config.bundle, config.public_key);
    return bundle;
  } catch (const Error& error) {
    report.fail("model", error.code(), error.what(),
                error.code() == Exit::kCredentials ? "set 'public_key' to your vendor's key file" : "install the bundle anew, signed with the key of 'public_key'");
    return std::nullopt;
  }
}

void run_model(const Config& config, const Bundle& bundle, Report& report) {
  try {
    const Model model(bundle, encoder_options(config));
    Encoder encoder(model, bundle);
    const std::vector<int8_t> black(kernels::Preprocessor(bundle.preprocess).output_size());
    encoder.run(black.data());
    const auto begin = Clock::now();
    for (int i = 0; i < 5; ++i) encoder.run(black.data());
    const double ms = since_ms(begin) / 5, have = 1000.0 / bundle.rate_hz;
    const std::string found = fmt::format("{} {}, profile {}: {:.1f} ms of {:.0f} ms per tick", bundle.name, bundle.version, bundle.profile, ms, have);
    if (ms < have)
      report.ok("model", found);
    else
      report.note("model", found, "more 'threads', or a smaller bundle; ticks will be dropped");
  } catch (const Error& error) {
    report.fail("model", error.code(), error.what(),
                error.code() == Exit::kUsage ? "another 'provider', or an ONNX Runtime that has this one" : "export the bundle anew for this version");
  }
}

void check_gpu(const Config& config, Report& report) {
  const auto have = available_providers();
  const bool device = fs::exists("/dev/nvidia0") || fs::exists("/dev/nvgpu") || fs::exists("/dev/nvhost-gpu");
  const bool usable = std::find(have.begin(), have.end(), "cuda") != have.end();
  if (config.provider != "cpu")
    report.ok("gpu", "the model runs with provider " + config.provider);
  else if (device && usable)
    report.note("gpu", "found, and not used", "provider = \"cuda\" or \"tensorrt\"");
  else
    report.ok("gpu", device ? "found, but this ONNX Runtime has no provider for it; the model runs on the CPU" : "none; the model runs on the CPU");
}

void check_clock(Report& report) {
  timex state{};
  const int status = adjtimex(&state);
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", std::gmtime(&now));
  if (status == TIME_ERROR || status < 0)
    report.note("clock", fmt::format("{}, not synchronised", text), "systemd-timesyncd or chrony; certificates and events depend on it");
  else
    report.ok("clock", fmt::format("{}, synchronised within {:.0f} ms", text, double(state.maxerror) / 1000));
}

void check_disk(const Config& config, Report& report) {
  fs::path folder = fs::absolute(config.state_dir);
  // What a run would create is looked at where it would lie.
  fs::path existing = folder;
  while (!fs::exists(existing) && existing.has_parent_path() && existing != existing.root_path()) existing = existing.parent_path();
  if (::access(existing.c_str(), W_OK | X_OK) != 0)
    return report.fail("disk", Exit::kStorage, existing.string() + " cannot be written to", "a 'state_dir' that this user owns; remount it if it is read-only");
  std::error_code problem;
  const auto room = fs::space(existing, problem);
  const double free_mb = problem ? 0 : double(room.available) / 1e6, want_mb = double(config.spool_max_bytes) / 1e6;
  const std::string found = fmt::format("{}: {:.0f} MB free, the spool takes up to {:.0f} MB", folder.string(), free_mb, want_mb);
  if (free_mb < 1) return report.fail("disk", Exit::kStorage, found, "make room");
  if (free_mb < want_mb) return report.note("disk", found, "make room, or lower 'spool_max_bytes'");
  report.ok("disk", found);
}

void check_link(const Config& config, Report& report) {
  std::optional<Credentials> credentials;
  try {
    credentials = load_credentials(config.ca, config.cert, config.key, config.camera_id);
  } catch (const Error& error) {
    return report.fail("identity", error.code(), error.what(), "have the certificate issued anew for this camera_id; check the clock");
  }
  const int64_t left_s = credentials->expires - int64_t(std::time(nullptr));
  const std::string valid = fmt::format("certificate of {} is valid for {:.1f} days", config.camera_id, double(left_s) / 86400);
  if (left_s < kSoon_s)
    report.note("identity", valid, "renew it; the files are read again while the device runs");
  else
    report.ok("identity", valid);
  const auto begin = Clock::now();
  const auto channel = grpc::CreateChannel(config.server, grpc::SslCredentials({credentials->ca, credentials->key, credentials->cert}));
  const auto stub = v1::Uplink::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kLinkPatience);
  const auto stream = stub->Stream(&context);
  stream->WritesDone();
  v1::Ack ack;
  while (stream->Read(&ack)) continue;
  const grpc::Status status = stream->Finish();
  if (status.ok()) return report.ok("link", fmt::format("{} answers after {:.0f} ms", config.server, since_ms(begin)));
  report.fail("link", Exit::kUndelivered, fmt::format("{}: {}", config.server, status.error_message()),
              "check 'server', the firewall, and that its certificate is signed by 'ca' for that name; packets wait in the spool until then");
}

}  // namespace

Exit doctor(const Config& config, const std::atomic<bool>& stop) {
  std::signal(SIGPIPE, SIG_IGN);
  Report report;
  // The camera first, whatever the order of the lines: the launcher forks, which is for a program with one thread.
  const auto bundle = check_model(config, report);
  const auto cameras = each_camera(config);
  const auto of_each = [&](const auto& check) {
    for (const Config& camera : cameras) {
      if (cameras.size() > 1) report.about(camera.camera_id);
      check(camera);
    }
    report.about("");
  };
  if (bundle) of_each([&](const Config& camera) { check_camera(camera, *bundle, stop, report); });
  if (bundle) run_model(config, *bundle, report);
  check_gpu(config, report);
  check_clock(report);
  of_each([&](const Config& camera) { check_disk(camera, report); });
  of_each([&](const Config& camera) { check_link(camera, report); });
  return report.first();
}

}  // namespace ruyicam::edge
