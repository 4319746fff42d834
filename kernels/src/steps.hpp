// The hot steps of the mapping and the preprocessing, once per backend: portable (plain C++) and simd
// (Highway). The portable ones are the truth that the others are tested and timed against.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ruyicam::kernels {

struct ProjectArgs {
  const int8_t* weight;
  const int32_t* bias;
  const int16_t* lut;
  int in_dim, out_dim;
  int half_lut;
  int32_t multiplier;
  int64_t round;
  int shift;
};

namespace portable {
void quantize(const float* h, size_t n, float scale, int8_t* q);
void project_token(const ProjectArgs& args, const int8_t* q, int16_t* u);
void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, int bits,
               int16_t* z);
void accumulate_row(const uint8_t* row, size_t n, uint32_t weight, uint32_t* sums);
}  // namespace portable

namespace simd {
void quantize(const float* h, size_t n, float scale, int8_t* q);
void project_token(const ProjectArgs& args, const int8_t* q, int16_t* u);
void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, int bits,
               int16_t* z);
void accumulate_row(const uint8_t* row, size_t n, uint32_t weight, uint32_t* sums);
}  // namespace simd

// (a * multiplier + round) >> shift, clamped into the table, looked up. |a * multiplier| < 2^62 by the limits.
inline int16_t look_up(const ProjectArgs& args, int32_t a) {
  int64_t i = (int64_t(a) * args.multiplier + args.round) >> args.shift;
  const int64_t low = -int64_t(args.half_lut), high = int64_t(args.half_lut) - 1;
  i = i < low ? low : (i > high ? high : i);
  return args.lut[i - low];
}

}  // namespace ruyicam::kernels
