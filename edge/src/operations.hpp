// What an operator's tools ask a running device: Prometheus metrics and health, over HTTP; and the word to systemd.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

namespace ruyicam::edge {

// cameras: an array of figures (Keeper's), one of each camera.

// In Prometheus's text format.
std::string prometheus_text(const nlohmann::json& cameras);

// {"status": "ok", "degraded" (source away or ended, server away, budget spent) or "failing", "source", "storage", "link", "budget"};
// of several cameras {"status": the worst, "cameras": {camera_id: as above}}
nlohmann::json health_of(const nlohmann::json& cameras);

// GET /metrics, /healthz (503 when it fails or its main loop does not answer) and /readyz (503 also when it is degraded).
class OperationsServer {
 public:
  // address: HOST:PORT; port 0 takes a free one. Throws Error(kAddress) with one line.
  OperationsServer(const std::string& address, size_t cameras);
  ~OperationsServer();
  OperationsServer(const OperationsServer&) = delete;
  OperationsServer& operator=(const OperationsServer&) = delete;

  // HOST:PORT that it listens on.
  std::string address() const;
  // From a camera's main loop, often: gives its figures to whoever waits for them. Costs nothing while nobody asks.
  void serve(size_t camera, const std::function<nlohmann::json()>& figures);
  // There will be no others of that camera.
  void leave(size_t camera, nlohmann::json last);

 private:
  struct Http;
  std::unique_ptr<Http> http_;
};

// sd_notify(3); does nothing where no service manager listens, or where the program was built without libsystemd.
class ServiceManager {
 public:
  ServiceManager();
  void ready();
  void stopping();
  // From the main loop, often: keeps the watchdog (WatchdogSec=) quiet, and shows `status` when it has changed.
  void alive(const std::function<std::string()>& status);

 private:
  std::chrono::steady_clock::duration watchdog_{};  // half of what the unit asks for; 0: none
  std::chrono::steady_clock::time_point fed_{}, shown_{};
  std::string status_;
};

}  // namespace ruyicam::edge
