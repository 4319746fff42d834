#include "ruyicam/kernels/dispatch.hpp"

#include <atomic>
#include <stdexcept>

#include <hwy/highway.h>
#include <hwy/targets.h>

#include "steps.hpp"

namespace ruyicam::kernels {
namespace {

// The twin by hand that goes with the best of Highway's targets, as a suffix of its name; empty where there is none.
std::string extension() {
  if (vnni::runs_here()) return "_VNNI";
  if (dotprod::runs_here()) return "_DOTPROD";
  return "";
}

std::atomic<bool> extended{true};

}  // namespace

bool use_extension() { return extended.load(std::memory_order_relaxed); }

std::vector<std::string> simd_targets() {
  std::vector<std::string> names;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) names.emplace_back(hwy::TargetName(target));
  if (!names.empty() && !extension().empty()) names.insert(names.begin(), names.front() + extension());
  return names;
}

void force_simd_target(const std::string& name) {
  hwy::SetSupportedTargetsForTest(0);
  const std::vector<int64_t> targets = hwy::SupportedAndGeneratedTargets();
  int64_t wanted = 0;
  bool found = name.empty(), with_extension = found;
  if (!found && !extension().empty() && name == hwy::TargetName(targets.front()) + extension())
    found = with_extension = true, wanted = targets.front();
  for (const int64_t target : targets)
    if (!found && name == hwy::TargetName(target)) found = true, wanted = target;
  if (!found)
    throw std::invalid_argument("SIMD target '" + name + "' is not available on this machine; see simd_targets()");
  extended = with_extension;
  hwy::SetSupportedTargetsForTest(wanted);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace ruyicam::kernels
