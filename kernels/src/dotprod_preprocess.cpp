// The area average by hand for ARMv8.2 with the dot product; the twin of vnni_preprocess.cpp, which see.
#include "steps.hpp"

#if defined(__aarch64__) && defined(__linux__) && defined(__GNUC__)
#include "arm.hpp"

namespace ruyicam::kernels::dotprod {
namespace {

// Left and right sums of all groups over a span of rows.
RUYICAM_DOTPROD void sum_groups(const AverageArgs& args, const Line::Span& span, uint32_t* left, uint32_t* right) {
  const RowParts rows(args, span);
  const uint8_t *wl = args.groups.left.data(), *wr = args.groups.right.data();
  int x = 0;
  for (; x + 16 <= args.width; x += 16) {
    const uint8x16_t to_left = vld1q_u8(wl + x), to_right = vld1q_u8(wr + x);
    uint32x4_t l = vdupq_n_u32(0), r = l;
    const uint8_t* row = rows.whole + x;
    for (int i = 0; i < rows.count; ++i, row += args.stride) {
      const uint8x16_t pixels = vld1q_u8(row);
      l = vdotq_u32(l, pixels, to_left);
      r = vdotq_u32(r, pixels, to_right);
    }
    l = vmulq_n_u32(l, args.rows.pixel);
    r = vmulq_n_u32(r, args.rows.pixel);
    for (int i = 0; i < rows.parts; ++i) {
      const uint8x16_t pixels = vld1q_u8(rows.part[i] + x);
      l = vmlaq_n_u32(l, vdotq_u32(vdupq_n_u32(0), pixels, to_left), rows.weight[i]);
      r = vmlaq_n_u32(r, vdotq_u32(vdupq_n_u32(0), pixels, to_right), rows.weight[i]);
    }
    vst1q_u32(left + x / 4, l);
    vst1q_u32(right + x / 4, r);
  }
  add_groups_from(args, span, x, left, right);
}

}  // namespace

bool can(const AverageArgs& args) { return can_gather(args); }

RUYICAM_DOTPROD void average(const AverageArgs& args) {
  const Divider over = args.divider();
  const uint64_t half = args.area() / 2;
  const Groups& g = args.groups;
  uint32_t *left = args.sums, *right = left + g.count + kGroupPadding;
  int32_t* cell = args.current;
  for (const Line::Span& span : args.rows.spans) {
    sum_groups(args, span, left, right);
    for (size_t j = 0; j < args.columns.spans.size(); ++j) {
      uint32_t sum = g.shared[j] ? right[g.first[j] - 1] : 0;
      for (int k = 0; k < g.length[j]; ++k) sum += left[g.first[j] + k];
      *cell++ = int32_t(over(16 * uint64_t(sum) + half));
    }
  }
}

}  // namespace ruyicam::kernels::dotprod

#else

namespace ruyicam::kernels::dotprod {
bool can(const AverageArgs&) { return false; }
void average(const AverageArgs&) {}
}  // namespace ruyicam::kernels::dotprod
#endif
