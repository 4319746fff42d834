// Steps of the mapping that its kernels share. The block's size is the same for all of them.
#pragma once
#include "ruyicam_cuda.hpp"

namespace ruyicam::kernels::cuda {

constexpr int kThreads = 128, kWarp = 32, kWarps = kThreads / kWarp;

__device__ inline int32_t quantize(float x) {
  x = x == x ? x : 0.0f;
  return __float2int_rn(fminf(fmaxf(x, -127.0f), 127.0f));
}

// floor(clip * 2^16 / ceil(sqrt(sum))), below 2^16 as sum > clip^2: root and quotient are guessed in float, then made exact.
__device__ inline int32_t clip_factor(uint64_t sum, int32_t clip) {
  uint64_t root = uint64_t(sqrtf(float(sum)));
  while (root * root >= sum) --root;
  while (root * root < sum) ++root;
  const uint64_t whole = uint64_t(clip) << 16;
  uint64_t factor = uint64_t(float(whole) / float(root));
  while (factor * root > whole) --factor;
  while ((factor + 1) * root <= whole) ++factor;
  return int32_t(factor);
}

// Where the table is asked for the sum `a`.
__device__ inline int64_t table_index(const MappingArgs& p, int32_t a) {
  const int64_t half = p.lut_size / 2;
  const int64_t index = (int64_t(a) * p.multiplier + p.round) >> p.shift;
  return (index < -half ? -half : (index > half - 1 ? half - 1 : index)) + half;
}

}  // namespace ruyicam::kernels::cuda
