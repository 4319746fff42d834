#include "gate.hpp"

#include <sodium.h>

#include <algorithm>

namespace ruyicam::edge {

uint32_t behaviour_token(const float* probabilities, size_t labels, double look_threshold) {
  const auto best = uint32_t(std::max_element(probabilities, probabilities + labels) - probabilities);
  if (best != 0) return best + 1;
  return 1.0 - double(probabilities[0]) >= look_threshold ? 1 : 0;
}

Gate::~Gate() {
  for (auto& tick : held_) sodium_memzero(tick.features.data(), tick.features.size() * sizeof(int16_t));
}

Decision Gate::decide() {
  Tick tick = std::move(held_.front());
  held_.pop_front();
  // last_look_ may lie before this tick or up to `around_` ticks after it.
  const bool near = looked_ && last_look_ + uint64_t(around_) >= tick.number;
  const bool open = near || tick.number % uint64_t(heartbeat_) == 0;
  return {std::move(tick), open};
}

std::optional<Decision> Gate::push(Tick tick) {
  if (tick.token != 0) {
    looked_ = true;
    last_look_ = tick.number;
  }
  const uint64_t newest = tick.number;
  held_.push_back(std::move(tick));
  if (held_.front().number + uint64_t(around_) > newest) return std::nullopt;
  return decide();
}

std::optional<Decision> Gate::flush() {
  if (held_.empty()) return std::nullopt;
  return decide();
}

}  // namespace ruyicam::edge
