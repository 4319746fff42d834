// What an operator's tools ask a running device: Prometheus metrics and health, over HTTP; and the word to systemd.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

namespace ruyicam::edge {

// The device's figures (Keeper's) in Prometheus's text format.
std::string prometheus_text(const nlohmann::json& figures);

// {"status": "ok", "degraded" (it heals by itself: source away, server away, budget spent) or "failing", "source", "storage", "link", "budget"}
nlohmann::json health_of(const nlohmann::json& figures);

// GET /metrics, /healthz (503 when it fails or its main loop does not answer) and /readyz (503 also when it is degraded).
class OperationsServer {
 public:
  // address: HOST:PORT; port 0 takes a free one. Throws Error(kAddress) with one line.
  explicit OperationsServer(const std::string& address);
  ~OperationsServer();
  OperationsServer(const OperationsServer&) = delete;
  OperationsServer& operator=(const OperationsServer&) = delete;

  // HOST:PORT that it listens on.
  std::string address() const;
  // From the main loop, often: gives the figures to whoever waits for them. Costs nothing while nobody asks.
  void serve(const std::function<nlohmann::json()>& figures);

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
