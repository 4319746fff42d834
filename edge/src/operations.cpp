#include "operations.hpp"

#include <httplib.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#ifdef RUYICAM_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <thread>
#include <vector>

#include "error.hpp"
#include "version.hpp"

namespace ruyicam::edge {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Labels = std::vector<prometheus::ClientMetric::Label>;

// A server that says nothing for so long is away.
constexpr double kSilent_s = 30;
// A main loop that does not answer for so long hangs.
constexpr auto kPatience = 2s;
constexpr auto kShowEvery = 1s;

// Every sample says whose it is.
class Families {
 public:
  void camera(const std::string& id) { camera_ = id; }
  void add(const char* name, const char* help, prometheus::MetricType type, double value, Labels labels = {}) {
    auto family = std::find_if(all_.begin(), all_.end(), [&](const auto& f) { return f.name == name; });
    if (family == all_.end()) family = all_.insert(all_.end(), {name, help, type, {}});
    prometheus::ClientMetric metric;
    labels.insert(labels.begin(), {"camera", camera_});
    metric.label = std::move(labels);
    if (type == prometheus::MetricType::Counter)
      metric.counter.value = value;
    else
      metric.gauge.value = value;
    family->metric.push_back(std::move(metric));
  }
  void counter(const char* name, const char* help, const json& value, Labels labels = {}) {
    add(name, help, prometheus::MetricType::Counter, value.get<double>(), std::move(labels));
  }
  void gauge(const char* name, const char* help, const json& value, Labels labels = {}) {
    add(name, help, prometheus::MetricType::Gauge, value.get<double>(), std::move(labels));
  }
  const std::vector<prometheus::MetricFamily>& all() const { return all_; }

 private:
  std::string camera_;
  std::vector<prometheus::MetricFamily> all_;
};

std::string text(const json& value) { return value.get<std::string>(); }

json camera_health(const json& f) {
  const std::string source = text(f["source"]), storage = text(f["storage"]);
  const bool waiting = f["spool"]["pending"].get<double>() > 0 && f["uplink"]["silent_s"].get<double>() > kSilent_s;
  const std::string link = waiting ? "waiting" : "ok", budget = text(f["budget"]);
  const bool good = source == "ticking" && link == "ok" && budget == "open";
  return {{"status", storage != "ok" ? "failing" : good ? "ok" : "degraded"},
          {"source", source}, {"storage", storage}, {"link", link}, {"budget", budget}};
}

void add_camera(Families& m, const json& f) {
  m.camera(text(f["camera_id"]));
  m.gauge("ruyicam_edge_info", "Always 1; what runs", 1,
          {{"version", kVersion}, {"bundle", text(f["bundle"])}, {"bundle_version", text(f["bundle_version"])}, {"profile", text(f["profile"])}});
  const json health = camera_health(f);
  for (const auto& [part, good] : {std::pair{"source", "ticking"}, {"storage", "ok"}, {"link", "ok"}, {"budget", "open"}})
    m.gauge("ruyicam_edge_healthy", "1: nothing is wrong with the part", int(text(health[part]) == good), {{"part", part}});
  m.counter("ruyicam_edge_packets_total", "Packets of this boot by what they hold", f["released"], {{"kind", "features"}});
  m.counter("ruyicam_edge_packets_total", "", f["withheld_by_gate"], {{"kind", "withheld_by_gate"}});
  m.counter("ruyicam_edge_packets_total", "", f["withheld_by_ledger"], {{"kind", "withheld_by_ledger"}});
  const json &ledger = f["ledger"], &spool = f["spool"], &uplink = f["uplink"], &outages = f["outages"];
  m.counter("ruyicam_edge_ledger_bits_total", "Bound on the bits released, all time, charged ahead in blocks", ledger["bits"]);
  m.counter("ruyicam_edge_ledger_releases_total", "Feature releases, all time", ledger["releases"]);
  m.gauge("ruyicam_edge_ledger_day_bits", "Bits charged today", ledger["day_bits"]);
  m.gauge("ruyicam_edge_ledger_day_bits_limit", "Most bits of a day", ledger["day_bits_limit"]);
  m.gauge("ruyicam_edge_spool_packets", "Packets on disk that the server has not acknowledged", spool["pending"]);
  m.counter("ruyicam_edge_spool_appended_total", "Packets put into the spool", spool["appended"]);
  m.counter("ruyicam_edge_spool_acknowledged_total", "Packets that the server has", spool["acknowledged"]);
  m.counter("ruyicam_edge_spool_dropped_total", "Packets given up: spool full, or too old", spool["dropped"]);
  m.counter("ruyicam_edge_spool_lost_total", "Packets that the disk did not take", spool["lost"]);
  m.counter("ruyicam_edge_spool_damaged_total", "Records passed over, their checksum wrong", spool["damaged"]);
  m.counter("ruyicam_edge_uplink_sent_total", "Packets sent, again counted again", uplink["sent"]);
  m.counter("ruyicam_edge_uplink_connections_total", "Attempts to connect", uplink["connections"]);
  m.counter("ruyicam_edge_uplink_failures_total", "Streams that broke", uplink["failures"]);
  m.gauge("ruyicam_edge_uplink_silent_seconds", "Since the last acknowledgement", uplink["silent_s"]);
  m.gauge("ruyicam_edge_certificate_expiry_timestamp_seconds", "Unix time at which this device's certificate expires", uplink["certificate_expires"]);
  m.counter("ruyicam_edge_source_outages_total", "How often a live source went away", outages["count"]);
  m.counter("ruyicam_edge_source_outage_seconds_total", "For how long", outages["all_s"]);
  m.counter("ruyicam_edge_clock_filled_total", "Ticks that left empty: no frame, or too late", f["clock"]["filled"]);
  m.counter("ruyicam_edge_clock_late_total", "Packets dropped: their tick had left", f["clock"]["late"]);
  for (const auto& [stage, times] : f["stages"].items())
    for (const auto& [quantile, key] : {std::pair{"0.5", "p50_us"}, {"0.95", "p95_us"}, {"0.99", "p99_us"}, {"1", "max_us"}})
      m.gauge("ruyicam_edge_stage_quantile_seconds", "Time per tick and stage, of the last 8192", times[key].get<double>() / 1e6,
              {{"stage", stage}, {"quantile", quantile}});
}

}  // namespace

json health_of(const json& cameras) {
  if (cameras.size() == 1) return camera_health(cameras[0]);
  const std::vector<std::string> from_best{"ok", "degraded", "failing"};
  size_t worst = 0;
  json each = json::object();
  for (const json& f : cameras) {
    const json& health = each[text(f["camera_id"])] = camera_health(f);
    worst = std::max(worst, size_t(std::find(from_best.begin(), from_best.end(), text(health["status"])) - from_best.begin()));
  }
  return {{"status", from_best[worst]}, {"cameras", each}};
}

std::string prometheus_text(const json& cameras) {
  Families m;
  for (const json& f : cameras) add_camera(m, f);
  return prometheus::TextSerializer().Serialize(m.all());
}

struct OperationsServer::Http {
  httplib::Server server;
  std::string host;
  int port = 0;
  std::thread thread;
  std::mutex mutex;
  std::condition_variable given;
  bool closing = false;
  std::atomic<bool> finished{false};
  struct Camera {
    bool wanted = false, left = false;
    json figures;
  };
  std::vector<Camera> cameras;

  // Of every camera, in order; null: one of them does not answer.
  json ask() {
    std::unique_lock lock(mutex);
    for (Camera& c : cameras) c.wanted = !c.left;
    const auto all_given = [&] { return std::none_of(cameras.begin(), cameras.end(), [](const Camera& c) { return c.wanted; }); };
    given.wait_for(lock, kPatience, [&] { return all_given() || closing; });
    json all;
    if (all_given())
      for (const Camera& c : cameras) all.push_back(c.figures);
    return all;
  }

  void answer_health(httplib::Response& response, bool strict) {
    const json f = ask();
    const json health = f.is_null() ? json{{"status", "failing"}, {"reason", "a camera's main loop does not answer"}} : health_of(f);
    const std::string status = text(health["status"]);
    response.status = status == "failing" || (strict && status != "ok") ? 503 : 200;
    response.set_content(health.dump() + "\n", "application/json");
  }
};

OperationsServer::OperationsServer(const std::string& address, size_t cameras) : http_(std::make_unique<Http>()) {
  Http& h = *http_;
  h.cameras.resize(cameras);
  const size_t colon = address.rfind(':');
  h.host = address.substr(0, colon);
  if (h.host.size() > 1 && h.host.front() == '[') h.host = h.host.substr(1, h.host.size() - 2);
  const int port = std::atoi(address.c_str() + colon + 1);
  // A few askers at a time, with little to say and little patience.
  h.server.new_task_queue = [] { return new httplib::ThreadPool(2); };
  h.server.set_read_timeout(5);
  h.server.set_write_timeout(5);
  h.server.set_keep_alive_max_count(100);
  h.server.set_payload_max_length(1024);
  h.server.Get("/metrics", [&h](const httplib::Request&, httplib::Response& response) {
    const json f = h.ask();
    if (f.is_null()) {
      response.status = 503;
      return;
    }
    response.set_content(prometheus_text(f), "text/plain; version=0.0.4; charset=utf-8");
  });
  h.server.Get("/healthz", [&h](const httplib::Request&, httplib::Response& response) { h.answer_health(response, false); });
  h.server.Get("/readyz", [&h](const httplib::Request&, httplib::Response& response) { h.answer_health(response, true); });
  h.port = port == 0 ? h.server.bind_to_any_port(h.host.c_str()) : h.server.bind_to_port(h.host.c_str(), port) ? port : -1;
  if (h.port <= 0) throw Error(Exit::kAddress, "metrics: cannot listen on " + address + "; is the port in use, or the address not this machine's?");
  h.thread = std::thread([&h] {
    h.server.listen_after_bind();
    h.finished = true;
  });
}

OperationsServer::~OperationsServer() {
  {
    const std::lock_guard lock(http_->mutex);
    http_->closing = true;
  }
  http_->given.notify_all();
  // stop() before the thread listens would be forgotten.
  while (!http_->server.is_running() && !http_->finished) std::this_thread::sleep_for(1ms);
  http_->server.stop();
  http_->thread.join();
}

std::string OperationsServer::address() const {
  const bool v6 = http_->host.find(':') != std::string::npos;
  return (v6 ? "[" + http_->host + "]" : http_->host) + ":" + std::to_string(http_->port);
}

void OperationsServer::serve(size_t camera, const std::function<json()>& figures) {
  Http::Camera& c = http_->cameras[camera];
  {
    const std::lock_guard lock(http_->mutex);
    if (!c.wanted) return;
  }
  json now = figures();
  const std::lock_guard lock(http_->mutex);
  c.figures = std::move(now);
  c.wanted = false;
  http_->given.notify_all();
}

void OperationsServer::leave(size_t camera, json last) {
  const std::lock_guard lock(http_->mutex);
  http_->cameras[camera] = {false, true, std::move(last)};
  http_->given.notify_all();
}

#ifdef RUYICAM_SYSTEMD
ServiceManager::ServiceManager() {
  uint64_t watchdog_us = 0;
  if (sd_watchdog_enabled(0, &watchdog_us) > 0) watchdog_ = std::chrono::microseconds(watchdog_us / 2);
}
void ServiceManager::ready() { sd_notify(0, "READY=1"); }
void ServiceManager::stopping() { sd_notify(0, "STOPPING=1"); }
void ServiceManager::alive(const std::function<std::string()>& status) {
  const auto now = Clock::now();
  if (watchdog_ > watchdog_.zero() && now >= fed_ + watchdog_) {
    fed_ = now;
    sd_notify(0, "WATCHDOG=1");
  }
  if (now < shown_ + kShowEvery) return;
  shown_ = now;
  if (auto text = "STATUS=" + status(); text != status_) sd_notify(0, (status_ = std::move(text)).c_str());
}
#else
ServiceManager::ServiceManager() = default;
void ServiceManager::ready() {}
void ServiceManager::stopping() {}
void ServiceManager::alive(const std::function<std::string()>&) {}
#endif

}  // namespace ruyicam::edge
