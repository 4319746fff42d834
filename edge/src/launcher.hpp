// Starts the process that sees frames, and the one that fetches for it, as often as they are wanted. A process of its own,
// forked before any thread runs; a source that failed is opened again in processes that know nothing of the failed ones.
#pragma once
#include <atomic>
#include <cstdint>

#include "bundle.hpp"
#include "config.hpp"
#include "records.hpp"

namespace ruyicam::edge {

class Launcher {
 public:
  // Forks. To be made while the program has one thread. payload: of records, see payload_size().
  Launcher(const Config& config, const Bundle& bundle, size_t payload, const std::atomic<bool>& stop);
  // Ends all that it has started.
  ~Launcher();
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  // Where the process that sees frames is heard and answered. A kGone record is the last of every such process.
  RecordPipe& pipe() { return pipe_; }
  // Starts it; one that runs is killed first.
  void start(const Epoch& epoch) { command(Order::kStart, epoch); }
  // Asks it to finish.
  void interrupt() { command(Order::kInterrupt, {}); }
  // Ends it at once; its kGone follows.
  void kill() { command(Order::kKill, {}); }

 private:
  enum class Order : uint32_t { kStart, kInterrupt, kKill };
  struct Command {
    Order order;
    Epoch epoch;
  };
  class Process;
  void command(Order order, const Epoch& epoch);

  int commands_ = -1, child_ = -1;
  RecordPipe pipe_;
};

}  // namespace ruyicam::edge
