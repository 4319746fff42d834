// The mapping by hand for ARMv8.2 with the dot product: every 32-bit lane adds up four products of signed bytes.
#include "steps.hpp"

#if defined(__aarch64__) && defined(__linux__) && defined(__GNUC__)
#include <sys/auxv.h>

#include <cstring>

#include "arm.hpp"

#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif

namespace ruyicam::kernels::dotprod {
namespace {

constexpr int kGroups = 2;  // of four outputs

// kT tokens and eight outputs from output j on.
template <int kT>
RUYICAM_DOTPROD void outputs(const ProjectArgs& args, const int8_t* q, size_t row, int j, int16_t* u) {
  int32x4_t sum[kT][kGroups];
  for (int t = 0; t < kT; ++t)
    for (int g = 0; g < kGroups; ++g) sum[t][g] = vld1q_s32(args.padded_bias + j + 4 * g);
  const size_t quads = padded_in(args.in_dim) / 4, step = 4 * size_t(args.padded_out);
  const int8_t* w = args.packed + 4 * size_t(j);
  for (size_t k = 0; k < quads; ++k, w += step) {
    const int8x16_t low = vld1q_s8(w), high = vld1q_s8(w + 16);
    for (int t = 0; t < kT; ++t) {
      int32_t four;
      std::memcpy(&four, q + size_t(t) * row + 4 * k, 4);
      const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
      sum[t][0] = vdotq_s32(sum[t][0], low, x);
      sum[t][1] = vdotq_s32(sum[t][1], high, x);
    }
  }
  for (int t = 0; t < kT; ++t) {
    int32_t a[4 * kGroups];
    for (int g = 0; g < kGroups; ++g) vst1q_s32(a + 4 * g, sum[t][g]);
    arm::store_outputs(args, a, j, u + t * args.out_dim);
  }
}

}  // namespace

bool runs_here() {
  static const bool yes = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  return yes;
}

RUYICAM_DOTPROD void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u) {
  auto* q = static_cast<int8_t*>(args.scratch);
  const size_t row = arm::row_bytes(args.in_dim);
  for (int t = 0; t < args.tokens;) {
    const int rows = args.tokens - t >= 4 ? 4 : 1;
    arm::quantize_rows(args, tokens + t * row_stride, row_stride, rows, q);
    for (int j = 0; j < args.out_dim; j += 4 * kGroups)
      (rows == 4 ? outputs<4> : outputs<1>)(args, q, row, j, u + t * args.out_dim);
    t += rows;
  }
}

}  // namespace ruyicam::kernels::dotprod

#else

namespace ruyicam::kernels::dotprod {
bool runs_here() { return false; }
void project(const ProjectArgs&, const float*, ptrdiff_t, int16_t*) {}
}  // namespace ruyicam::kernels::dotprod
#endif
