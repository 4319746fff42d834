// What the twins for ARMv8.2 share.
#pragma once
#include <arm_neon.h>

#include "steps.hpp"

// On each function rather than on the file, so that no inline function of a header is compiled for this processor alone.
#if defined(__clang__)
#define RUYICAM_DOTPROD __attribute__((target("dotprod")))
#define RUYICAM_I8MM __attribute__((target("i8mm")))
#else
#define RUYICAM_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#define RUYICAM_I8MM __attribute__((target("arch=armv8.2-a+i8mm")))
#endif

namespace ruyicam::kernels::arm {

template <bool kMultiply>
inline int16x8_t quantize(const float* h, float32x4_t scale) {
  const float32x4_t a = vld1q_f32(h), b = vld1q_f32(h + 4);
  // Converting takes NaN to 0 and saturates.
  const int32x4_t x = vcvtnq_s32_f32(kMultiply ? vmulq_f32(a, scale) : vdivq_f32(a, scale));
  const int32x4_t y = vcvtnq_s32_f32(kMultiply ? vmulq_f32(b, scale) : vdivq_f32(b, scale));
  return vcombine_s16(vqmovn_s32(x), vqmovn_s32(y));
}

template <bool kMultiply>
inline void quantize_row(const float* h, int n, float scale, int8_t* q) {
  const float32x4_t s = vdupq_n_f32(kMultiply ? 1.0f / scale : scale);
  const int8x16_t least = vdupq_n_s8(-127);
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    const int8x16_t x = vcombine_s8(vqmovn_s16(quantize<kMultiply>(h + i, s)), vqmovn_s16(quantize<kMultiply>(h + i + 8, s)));
    vst1q_s8(q + i, vmaxq_s8(x, least));
  }
  for (; i < n; ++i) q[i] = kernels::quantize(h[i], scale);
  for (; i % 16 != 0; ++i) q[i] = 0;
}

// Rounded tokens are rows of so many bytes, with zeros behind.
inline size_t row_bytes(int in_dim) { return (size_t(in_dim) + 15) / 16 * 16; }

inline void quantize_rows(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int rows, int8_t* q) {
  const auto row = exact_inverse(args.scale) != 0 ? quantize_row<true> : quantize_row<false>;
  for (int t = 0; t < rows; ++t, tokens += row_stride, q += row_bytes(args.in_dim)) row(tokens, args.in_dim, args.scale, q);
}

// Eight sums of one token, for outputs from j on, to table entries.
inline void store_outputs(const ProjectArgs& args, const int32_t* sums, int j, int16_t* u) {
  for (int i = 0; i < 8 && j + i < args.out_dim; ++i) u[j + i] = look_up(args, sums[i]);
}

}  // namespace ruyicam::kernels::arm
