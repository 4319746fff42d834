// Waiting times that double up to a limit, each shortened by chance, so that many devices do not come back at once.
#pragma once
#include <algorithm>
#include <chrono>
#include <random>

namespace ruyicam::edge {

class Backoff {
 public:
  using Milliseconds = std::chrono::milliseconds;
  Backoff(Milliseconds first, Milliseconds last) : first_(first), last_(last), now_(first) {}
  // Between half of the present time and all of it.
  Milliseconds next() {
    const Milliseconds wait{std::uniform_int_distribution<Milliseconds::rep>(now_.count() / 2, now_.count())(random_)};
    now_ = std::min(2 * now_, last_);
    return wait;
  }
  // It went well.
  void reset() { now_ = first_; }

 private:
  Milliseconds first_, last_, now_;
  std::mt19937 random_{std::random_device{}()};
};

}  // namespace ruyicam::edge
