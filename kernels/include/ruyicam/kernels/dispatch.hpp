// Which implementation runs: the portable C++ (the truth) or a Highway target chosen at run time.
#pragma once
#include <string>
#include <vector>

namespace ruyicam::kernels {

enum class Backend { kPortable, kSimd };

// Names of the Highway targets compiled in that this CPU can run, best first (for example "AVX3").
std::vector<std::string> simd_targets();
// Makes Backend::kSimd use the named target ("" = best). Throws std::invalid_argument if unknown here.
void force_simd_target(const std::string& name);

}  // namespace ruyicam::kernels
