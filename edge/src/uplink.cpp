#include "uplink.hpp"

#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>

#include <deque>
#include <utility>

#include "backoff.hpp"
#include "certificate.hpp"
#include "error.hpp"
#include "log_camera.hpp"
#include "ruyicam/v1/uplink.grpc.pb.h"

namespace ruyicam::edge {
namespace {

using Clock = std::chrono::steady_clock;

// Packets on the way at once: a second of a busy link, and little enough to send again.
constexpr size_t kInFlight = 512;
constexpr auto kLookEvery = std::chrono::seconds(5);
constexpr auto kGrace = std::chrono::seconds(2);
constexpr auto kFirstRetry = std::chrono::milliseconds(200), kLastRetry = std::chrono::milliseconds(5000);

}  // namespace

struct Uplink::Channel {
  grpc::ClientContext* context = nullptr;  // of the stream that is open, under Uplink::mutex_
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Uplink::Stub> stub;
};

Uplink::Uplink(std::string server, CredentialFiles& credentials, std::filesystem::path certificates, Spool& spool, Latencies& latencies)
    : server_(std::move(server)), credentials_(credentials), certificates_(std::move(certificates)), spool_(spool), latencies_(latencies),
      channel_(std::make_unique<Channel>()) {
  open_channel();
  thread_ = std::thread(as_this_camera([this] { run(); }));
}

void Uplink::open_channel() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, int(kFirstRetry.count()));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, int(kLastRetry.count()));
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A bad link takes its time: 30 % loss and 2 s of delay must not look like none.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 60000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 30000);
  const auto credentials = credentials_.current();
  channel_->channel = grpc::CreateCustomChannel(server_, grpc::SslCredentials({credentials->ca, credentials->key, credentials->cert}), arguments);
  channel_->stub = v1::Uplink::NewStub(channel_->channel);
}

bool Uplink::renewed() {
  if (Clock::now() < looked_ + kLookEvery) return false;
  looked_ = Clock::now();
  return credentials_.renew();
}

Uplink::~Uplink() { stop(); }

// Lets the open stream end by itself for a moment; a link that hangs is cut.
void Uplink::stop() {
  stop_ = true;
  if (!thread_.joinable()) return;
  const auto until = Clock::now() + kGrace;
  while (!finished_ && Clock::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  {
    const std::lock_guard lock(mutex_);
    if (channel_->context) channel_->context->TryCancel();
  }
  thread_.join();
}

void Uplink::run() {
  Backoff backoff(kFirstRetry, kLastRetry);
  try {
    while (!stop_) {
      const uint64_t before = acknowledged_;
      connect_once();
      if (stop_) break;
      if (std::exchange(renewed_, false) || renewed()) {
        spdlog::info("uplink: credentials renewed");
        backoff.reset();
      }
      // A channel that has failed answers from its own memory for a while, by clocks that may have jumped.
      open_channel();
      spool_.rewind();
      if (acknowledged_ > before) backoff.reset();
      const auto until = Clock::now() + backoff.next();
      while (!stop_ && Clock::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  } catch (const std::exception& error) {
    announce_problem(error.what());
  }
  finished_ = true;
}

// True: the server has all of them.
bool Uplink::certify_all() {
  bool all = true;
  for (const SessionCertificate& c : waiting_certificates(certificates_)) {
    v1::SessionCertificate request;
    request.set_statement(c.statement);
    request.set_signature(c.signature);
    request.set_certificate(c.certificate);
    v1::Certified reply;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kGrace);
    const grpc::Status status = channel_->stub->Certify(&context, request, &reply);
    const bool refused = status.error_code() == grpc::StatusCode::INVALID_ARGUMENT;
    if (refused) spdlog::warn("the server refuses certificate {}: {}", c.path.string(), status.error_message());
    try {
      if (status.ok() || refused)
        put_away(c);
      else
        all = false;
    } catch (const Error&) {
      // A disk that cannot be written to: it is offered again, which the server knows.
      all = false;
    }
  }
  return all;
}

void Uplink::announce_problem(const std::string& what) {
  const std::lock_guard lock(mutex_);
  if (problem_.empty()) problem_ = what;
}

// One stream, from connecting to its end. The caller rewinds the spool.
void Uplink::connect_once() {
  grpc::ClientContext context;
  const auto announce = [&](grpc::ClientContext* c) {
    const std::lock_guard lock(mutex_);
    channel_->context = c;
  };
  announce(&context);
  struct Withdraw {
    decltype(announce)& f;
    ~Withdraw() { f(nullptr); }
  } withdraw{announce};
  const auto stream = channel_->stub->Stream(&context);
  ++connections_;
  struct Sent {
    std::string boot;
    uint64_t sequence;
    Clock::time_point at;
  };
  std::mutex mutex;
  std::deque<Sent> in_flight;
  std::atomic<bool> broken{false};
  const auto read_acknowledgements = [&] {
    v1::Ack ack;
    while (stream->Read(&ack)) {
      size_t count = 0;
      {
        const std::lock_guard lock(mutex);
        // An acknowledgement covers all earlier packets of its boot, and those of boots sent before it.
        size_t upto = 0;
        for (size_t i = 0; i < in_flight.size(); ++i)
          if (in_flight[i].boot == ack.boot_id() && in_flight[i].sequence <= ack.sequence()) upto = i + 1;
        const auto now = Clock::now();
        for (; count < upto; ++count) {
          latencies_.add("uplink", std::chrono::duration<double, std::micro>(now - in_flight.front().at).count());
          in_flight.pop_front();
        }
      }
      spool_.acknowledge(count);
      acknowledged_ += count;
      heard_ = Clock::now().time_since_epoch();
    }
  };
  std::thread reader([&] {
    try {
      read_acknowledgements();
    } catch (const std::exception& error) {
      announce_problem(error.what());
    }
    broken = true;
  });
  v1::FeaturePacket packet;
  while (!stop_ && !broken && !(renewed_ = renewed())) {
    {
      std::unique_lock lock(mutex);
      if (in_flight.size() >= kInFlight) {
        lock.unlock();
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        continue;
      }
    }
    // After its session's packets: the server knows the boot then.
    if (offer_ && spool_.empty() && offer_.exchange(false) && !certify_all()) offer_ = true;
    const auto bytes = spool_.next(50);
    if (!bytes) continue;
    if (!packet.ParseFromString(*bytes)) {
      context.TryCancel();
      reader.join();
      throw Error(Exit::kStorage, "a spooled packet cannot be parsed");
    }
    {
      const std::lock_guard lock(mutex);
      in_flight.push_back({packet.boot_id(), packet.sequence(), Clock::now()});
    }
    if (!stream->Write(packet)) break;
    ++sent_;
  }
  if (stop_)
    stream->WritesDone();
  else
    context.TryCancel();
  reader.join();
  const grpc::Status status = stream->Finish();
  if (!status.ok() && !stop_ && !renewed_) {
    ++failures_;
    spdlog::warn("uplink to {} broke: {} ({}); {} packets wait", server_, status.error_message(),
                 int(status.error_code()), spool_.pending());
  }
}

bool Uplink::drain(int timeout_s, const std::atomic<bool>& give_up) {
  const auto until = Clock::now() + std::chrono::seconds(timeout_s);
  while ((!spool_.empty() || offer_) && Clock::now() < until && !give_up && problem().empty())
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  stop();
  return spool_.empty();
}

UplinkStats Uplink::stats() const { 
  const std::chrono::duration<double> silent = Clock::now().time_since_epoch() - heard_.load();
  return {sent_, acknowledged_, connections_, failures_, silent.count()};
}

std::string Uplink::problem() const {
  const std::lock_guard lock(mutex_);
  return problem_;
}

}  // namespace ruyicam::edge
