// Sends the spool's packets to the service and forgets what it has acknowledged. Reconnects for ever.
#pragma once
#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "credentials.hpp"
#include "spool.hpp"
#include "stats.hpp"

namespace ruyicam::edge {

struct UplinkStats {
  uint64_t sent = 0, acknowledged = 0, connections = 0, failures = 0;
  double silent_s = 0;  // since the last acknowledgement, or since it was made
};

class Uplink {
 public:
  // certificates: folder of session certificates; those that the server has not taken yet are offered to it.
  // credentials: looked at every few seconds, and a connection is made anew with those that were renewed.
  Uplink(std::string server, CredentialFiles& credentials, std::filesystem::path certificates, Spool& spool, Latencies& latencies);
  ~Uplink();
  // There is a new certificate in the folder.
  void offer_certificates() { offer_ = true; }
  // Lets the spool empty, and the certificates be taken, for at most that long, or until `give_up` is set, then stops. True: all was acknowledged.
  bool drain(int timeout_s, const std::atomic<bool>& give_up);
  UplinkStats stats() const;
  // An error that the sending thread cannot mend (storage); empty if there is none.
  std::string problem() const;

 private:
  void run();
  void open_channel();
  // True: the credentials were renewed.
  bool renewed();
  void connect_once();
  bool certify_all();
  void announce_problem(const std::string& what);
  void stop();

  std::string server_;
  CredentialFiles& credentials_;
  std::filesystem::path certificates_;
  Spool& spool_;
  Latencies& latencies_;
  std::atomic<bool> stop_{false}, finished_{false}, offer_{true};
  std::atomic<uint64_t> sent_{0}, acknowledged_{0}, connections_{0}, failures_{0};
  std::atomic<std::chrono::steady_clock::duration> heard_{std::chrono::steady_clock::now().time_since_epoch()};
  mutable std::mutex mutex_;
  std::string problem_;
  bool renewed_ = false;
  std::chrono::steady_clock::time_point looked_ = std::chrono::steady_clock::now();
  struct Channel;
  std::unique_ptr<Channel> channel_;
  std::thread thread_;
};

}  // namespace ruyicam::edge
