#include "ruyicam/kernels/dispatch.hpp"

#include <atomic>
#include <stdexcept>

#include <hwy/highway.h>
#include <hwy/targets.h>

#include "steps.hpp"

namespace ruyicam::kernels {
namespace {

struct Named {
  Extension extension;
  const char* suffix;
};

// Twins by hand that this processor can run, best first; they go with the best of Highway's targets.
std::vector<Named> extensions() {
  std::vector<Named> all;
  if (vnni::runs_here()) all.push_back({Extension::kVnni, "_VNNI"});
  if (pairs::runs_here()) all.push_back({Extension::kPairs, "_PAIRS"});
  if (i8mm::runs_here() && dotprod::runs_here()) all.push_back({Extension::kI8mm, "_I8MM"});
  if (dotprod::runs_here()) all.push_back({Extension::kDotprod, "_DOTPROD"});
  return all;
}

Extension best() {
  const std::vector<Named> all = extensions();
  return all.empty() ? Extension::kNone : all.front().extension;
}

std::atomic<Extension>& chosen() {
  static std::atomic<Extension> extension{best()};
  return extension;
}

}  // namespace

Extension extension() { return chosen().load(std::memory_order_relaxed); }

std::vector<std::string> simd_targets() {
  std::vector<std::string> names;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) names.emplace_back(hwy::TargetName(target));
  const std::vector<Named> all = extensions();
  for (auto named = all.rbegin(); named != all.rend() && !names.empty(); ++named)
    names.insert(names.begin(), hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()) + std::string(named->suffix));
  return names;
}

void force_simd_target(const std::string& name) {
  hwy::SetSupportedTargetsForTest(0);
  const std::vector<int64_t> targets = hwy::SupportedAndGeneratedTargets();
  int64_t wanted = 0;
  bool found = name.empty();
  Extension taken = found ? best() : Extension::kNone;
  for (const int64_t target : targets) {
    if (!found && name == hwy::TargetName(target)) found = true, wanted = target;
    if (target != targets.front()) continue;
    for (const Named& named : extensions())
      if (!found && name == hwy::TargetName(target) + std::string(named.suffix))
        found = true, wanted = target, taken = named.extension;
  }
  if (!found)
    throw std::invalid_argument("SIMD target '" + name + "' is not available on this machine; see simd_targets()");
  chosen() = taken;
  hwy::SetSupportedTargetsForTest(wanted);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace ruyicam::kernels
