#include "stats.hpp"

#include <algorithm>

namespace ruyicam::edge {

constexpr size_t kKept = 8192;

void Latencies::add(const std::string& stage, double microseconds) {
  const std::lock_guard lock(mutex_);
  Stage& s = stages_[stage];
  if (s.samples.size() < kKept)
    s.samples.push_back(microseconds);
  else
    s.samples[s.count % kKept] = microseconds;
  ++s.count;
}

nlohmann::json Latencies::summary() const {
  const std::lock_guard lock(mutex_);
  nlohmann::json out = nlohmann::json::object();
  for (const auto& [name, stage] : stages_) {
    std::vector<double> sorted = stage.samples;
    std::sort(sorted.begin(), sorted.end());
    const auto at = [&](double q) { return sorted[std::min(sorted.size() - 1, size_t(q * double(sorted.size())))]; };
    out[name] = {{"count", stage.count}, {"p50_us", at(0.5)}, {"p95_us", at(0.95)}, {"p99_us", at(0.99)}, {"max_us", sorted.back()}};
  }
  return out;
}

}  // namespace ruyicam::edge
