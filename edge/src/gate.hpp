// Stage one. Decides which ticks leave the device: those around a tick worth a look, and a sparse heartbeat.
// The decision is a function of the released tokens and the tick number alone, so it tells nothing more.
#pragma once
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace ruyicam::edge {

// The token of one tick: 0 quiet, 1 "look", then the labels after the quiet one. probabilities: one per label.
uint32_t behaviour_token(const float* probabilities, size_t labels, double look_threshold);

struct Tick {
  uint64_t number = 0;
  uint64_t captured_at_us = 0;
  uint32_t token = 0;
  bool seen = true;               // there was a frame
  bool paid = true;               // the ledger has paid for the token; if not, it is 0 and nothing of the tick leaves
  double work_us = 0;             // from the frame's arrival until the gate had the tick
  std::vector<int16_t> features;  // clipped, without noise: never leaves the process
};

struct Decision {
  Tick tick;
  bool open = false;
};

class Gate {
 public:
  Gate(int around_ticks, int heartbeat_ticks) : around_(around_ticks), heartbeat_(heartbeat_ticks) {}
  ~Gate();
  // Takes the next tick; gives back the one whose surroundings are now known, if any.
  std::optional<Decision> push(Tick tick);
  // After the last push: the held ticks, one per call, oldest first.
  std::optional<Decision> flush();

 private:
  Decision decide();

  int around_, heartbeat_;
  std::deque<Tick> held_;
  uint64_t last_look_ = 0;
  bool looked_ = false;
};

}  // namespace ruyicam::edge
