#include "ruyicam/kernels/dispatch.hpp"

#include <stdexcept>

#include <hwy/highway.h>
#include <hwy/targets.h>

namespace ruyicam::kernels {

std::vector<std::string> simd_targets() {
  std::vector<std::string> names;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) names.emplace_back(hwy::TargetName(target));
  return names;
}

void force_simd_target(const std::string& name) {
  hwy::SetSupportedTargetsForTest(0);
  int64_t wanted = 0;
  if (!name.empty()) {
    for (const int64_t target : hwy::SupportedAndGeneratedTargets())
      if (name == hwy::TargetName(target)) wanted = target;
    if (wanted == 0)
      throw std::invalid_argument("SIMD target '" + name + "' is not available on this machine; see simd_targets()");
  }
  hwy::SetSupportedTargetsForTest(wanted);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace ruyicam::kernels
