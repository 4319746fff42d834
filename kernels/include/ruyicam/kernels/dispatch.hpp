// Which implementation runs: the portable C++ (the truth) or a Highway target chosen at run time.
#pragma once
#include <string>
#include <vector>

namespace ruyicam::kernels {

enum class Backend { kPortable, kSimd };

// Names of the targets compiled in that this CPU can run, best first: Highway's (for example "AVX3"), before them the
// best one with its twins by hand ("AVX3_VNNI", "AVX2_PAIRS", "NEON_I8MM", "NEON_DOTPROD"), where there are some.
std::vector<std::string> simd_targets();
// Makes Backend::kSimd use the named target ("" = best). Throws std::invalid_argument if unknown here.
void force_simd_target(const std::string& name);

}  // namespace ruyicam::kernels
