// The mapping by hand for ARMv8.6 with the matrix product of bytes: every instruction adds up eight products for two tokens and
// two outputs each, twice what the dot product does.
#include "steps.hpp"

#if defined(__aarch64__) && defined(__linux__) && defined(__GNUC__)
#include <sys/auxv.h>

#include "arm.hpp"

#ifndef HWCAP2_I8MM
#define HWCAP2_I8MM (1 << 13)
#endif

namespace ruyicam::kernels::i8mm {
namespace {

constexpr int kPairs = 4;  // of outputs

// kPairsOfTokens times two tokens and eight outputs from output j on; the second of a last pair may be the first again.
template <int kPairsOfTokens>
RUYICAM_I8MM void outputs(const ProjectArgs& args, const int8_t* const* q, int tokens, int j, int16_t* u) {
  int32x4_t sum[kPairsOfTokens][kPairs];
  for (int p = 0; p < kPairs; ++p) {
    const int32x2_t bias = vld1_s32(args.padded_bias + j + 2 * p);
    for (int t = 0; t < kPairsOfTokens; ++t) sum[t][p] = vcombine_s32(bias, bias);
  }
  const size_t quads = padded_in(args.in_dim) / 4, step = 4 * size_t(args.padded_out);
  const int8_t* w = args.packed + 4 * size_t(j);
  for (size_t k = 0; k < quads; k += 2, w += 2 * step) {
    const bool both = k + 1 < quads;
    int8x16_t weights[kPairs];
    for (int half = 0; half < 2; ++half) {
      // Four inputs of four outputs, and the four inputs after them, side by side for each output.
      const int32x4_t near = vreinterpretq_s32_s8(vld1q_s8(w + 16 * half));
      const int32x4_t far = both ? vreinterpretq_s32_s8(vld1q_s8(w + step + 16 * half)) : vdupq_n_s32(0);
      weights[2 * half] = vreinterpretq_s8_s32(vzip1q_s32(near, far));
      weights[2 * half + 1] = vreinterpretq_s8_s32(vzip2q_s32(near, far));
    }
    for (int t = 0; t < kPairsOfTokens; ++t) {
      const int8x16_t x = vcombine_s8(vld1_s8(q[2 * t] + 4 * k), vld1_s8(q[2 * t + 1] + 4 * k));
      for (int p = 0; p < kPairs; ++p) sum[t][p] = vmmlaq_s32(sum[t][p], x, weights[p]);
    }
  }
  for (int t = 0; t < tokens; ++t) {
    int32_t a[2 * kPairs];
    for (int p = 0; p < kPairs; ++p)
      vst1_s32(a + 2 * p, t % 2 ? vget_high_s32(sum[t / 2][p]) : vget_low_s32(sum[t / 2][p]));
    arm::store_outputs(args, a, j, u + t * args.out_dim);
  }
}

}  // namespace

bool runs_here() {
  static const bool yes = (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
  return yes;
}

RUYICAM_I8MM void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u) {
  auto* q = static_cast<int8_t*>(args.scratch);
  const size_t row = arm::row_bytes(args.in_dim);
  for (int t = 0; t < args.tokens; t += 4) {
    const int rows = std::min(args.tokens - t, 4);
    arm::quantize_rows(args, tokens + t * row_stride, row_stride, rows, q);
    const int8_t* at[4];
    for (int i = 0; i < 4; ++i) at[i] = q + size_t(std::min(i, rows - 1)) * row;
    for (int j = 0; j < args.out_dim; j += 2 * kPairs)
      (rows > 2 ? outputs<2> : outputs<1>)(args, at, rows, j, u + t * args.out_dim);
  }
}

}  // namespace ruyicam::kernels::i8mm

#else

namespace ruyicam::kernels::i8mm {
bool runs_here() { return false; }
void project(const ProjectArgs&, const float*, ptrdiff_t, int16_t*) {}
}  // namespace ruyicam::kernels::i8mm
#endif
