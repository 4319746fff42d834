// Sends the spool's packets to the service and forgets what it has acknowledged. Reconnects for ever.
#pragma once
#include <atomic>
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
};

class Uplink {
 public:
  Uplink(std::string server, Credentials credentials, Spool& spool, Latencies& latencies);
  ~Uplink();
  // Lets the spool empty for at most that long, or until `give_up` is set, then stops. True: all was acknowledged.
  bool drain(int timeout_s, const std::atomic<bool>& give_up);
  UplinkStats stats() const;
  // An error that the sending thread cannot mend (storage); empty if there is none.
  std::string problem() const;

 private:
  void run();
  void connect_once();
  void announce_problem(const std::string& what);
  void stop();

  std::string server_;
  Credentials credentials_;
  Spool& spool_;
  Latencies& latencies_;
  std::atomic<bool> stop_{false}, finished_{false};
  std::atomic<uint64_t> sent_{0}, acknowledged_{0}, connections_{0}, failures_{0};
  mutable std::mutex mutex_;
  std::string problem_;
  struct Channel;
  std::unique_ptr<Channel> channel_;
  std::thread thread_;
};

}  // namespace ruyicam::edge
