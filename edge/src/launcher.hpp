// Starts the processes that see frames, those that fetch for them, and for several cameras the one with the model, as often
// as they are wanted. A process of its own, forked before any thread runs; a source that failed is opened again in processes
// that know nothing of the failed ones.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "bundle.hpp"
#include "config.hpp"
#include "records.hpp"

namespace ruyicam::edge {

class Launcher {
 public:
  // Forks. To be made while the program has one thread. config: its cameras are those of each_camera(). payload: of records,
  // see payload_size().
  Launcher(const Config& config, const Bundle& bundle, size_t payload, const std::atomic<bool>& stop);
  // Ends all that it has started.
  ~Launcher();
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  // Where a camera's process that sees frames is heard and answered. A kGone record is the last of every such process.
  RecordPipe& pipe(size_t camera) { return pipes_[camera]; }
  // What follows is thread-safe.
  // Starts it; none must be running.
  void start(size_t camera, const Epoch& epoch) { command(Order::kStart, camera, epoch); }
  // Asks it to finish.
  void interrupt(size_t camera) { command(Order::kInterrupt, camera, {}); }
  // Ends it at once; its kGone follows. If it has ended already without a word, the process with the model is ended.
  void kill(size_t camera) { command(Order::kKill, camera, {}); }

 private:
  enum class Order : uint32_t { kStart, kInterrupt, kKill };
  struct Command {
    Order order;
    uint32_t camera;
    Epoch epoch;
  };
  class Process;
  void command(Order order, size_t camera, const Epoch& epoch);

  int commands_ = -1, child_ = -1;
  std::vector<RecordPipe> pipes_;
};

}  // namespace ruyicam::edge
