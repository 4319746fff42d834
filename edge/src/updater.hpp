// Looks for other bundles, on the uplink's server and in a folder (a USB stick), and installs what is good.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "config.hpp"
#include "credentials.hpp"
#include "slots.hpp"

namespace ruyicam::edge {

class Updater {
 public:
  // Looks every `update_every_s`, the first time after a few seconds; a failure is logged and tried again at the next look.
  Updater(const Config& config, CredentialFiles& credentials, Slots& slots);
  ~Updater();
  // A bundle waits for its trial: the program is to be started again.
  bool installed() const { return installed_; }

 private:
  void run();
  bool look();
  // True: something was installed.
  bool look_in_folder();
  bool look_on_server();
  // Throws Error(kUndelivered) if the server cannot be asked.
  bool server_knows(const Bundle& bundle);
  // A call that the destructor can cut, to `use` it.
  template <class Use>
  auto call(std::chrono::seconds patience, Use use);

  const Config& config_;
  CredentialFiles& credentials_;
  Slots& slots_;
  std::atomic<bool> installed_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::string last_problem_;
  struct Call;
  Call* call_ = nullptr;  // the one that is open, under mutex_
  std::thread thread_;
};

}  // namespace ruyicam::edge
