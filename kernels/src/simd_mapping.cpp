// Highway twins of portable.cpp's mapping: rounding, int8 dot products, table look-up, clipping.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd_mapping.cpp"
#include <hwy/foreach_target.h>

#include <type_traits>

#include <hwy/highway.h>

#include "ruyicam/kernels/mapping.hpp"
#include "steps.hpp"

HWY_BEFORE_NAMESPACE();
namespace ruyicam::kernels::HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR
void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u) {
  portable::project(args, tokens, row_stride, u);
}
void clip_l2(int16_t* u, size_t n, int32_t clip) { portable::clip_l2(u, n, clip); }
#else
namespace hn = hwy::HWY_NAMESPACE;

// How a target multiplies: pairs of 16 bits on x86, row by row elsewhere. Bytes by fours are in vnni_mapping.cpp and
// dotprod_mapping.cpp: Highway 1.0 has no operation for them.
#undef RUYICAM_HALVES
#define RUYICAM_HALVES (HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128)

template <bool kMultiply, class T>
void quantize_row(const float* h, size_t n, float scale, T* q) {
  const hn::ScalableTag<float> df;
  const size_t lanes = hn::Lanes(df);
  const auto s = hn::Set(df, kMultiply ? 1.0f / scale : scale), low = hn::Set(df, -127.0f), high = hn::Set(df, 127.0f);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    auto x = hn::LoadU(df, h + i);
    x = kMultiply ? hn::Mul(x, s) : hn::Div(x, s);
    x = hn::IfThenElseZero(hn::Eq(x, x), x);
    const auto rounded = hn::NearestInt(hn::Min(hn::Max(x, low), high));
    const hn::Rebind<T, decltype(df)> ds;
    hn::StoreU(hn::DemoteTo(ds, rounded), ds, q + i);
  }
  for (; i < n; ++i) q[i] = quantize(h[i], scale);
  for (; i < padded_in(int(n)); ++i) q[i] = 0;
}

// lut[clamp((a * multiplier + round) >> shift) + half] of a vector of sums, as 32-bit lanes.
template <class D32, class V32 = hn::Vec<D32>>
V32 look_up_vector(D32 d32, V32 a, const ProjectArgs& args) {
  if (const NarrowIndex& n = *args.narrow; n.fits) {
    a = hn::Min(hn::Max(a, hn::Set(d32, n.low)), hn::Set(d32, n.high));
    const auto scaled = hn::Add(hn::Mul(a, hn::Set(d32, args.multiplier)), hn::Set(d32, n.round));
    return hn::GatherIndex(d32, args.wide_lut + args.half_lut, hn::ShiftRightSame(scaled, args.shift));
  }
  const hn::RepartitionToWide<D32> d64;
  const auto m = hn::Set(d32, args.multiplier);
  const auto round = hn::Set(d64, args.round), low = hn::Set(d64, -int64_t(args.half_lut)),
             high = hn::Set(d64, int64_t(args.half_lut) - 1);
  const auto index = [&](auto product) {
    return hn::Min(hn::Max(hn::ShiftRightSame(hn::Add(product, round), args.shift), low), high);
  };
  const hn::RebindToUnsigned<decltype(d64)> du64;
  const auto odd_lanes = hn::BitCast(d32, hn::ShiftRight<32>(hn::BitCast(du64, a)));
  const auto even = index(hn::MulEven(a, m)), odd = index(hn::MulEven(odd_lanes, m));
  const auto both = hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(odd)), hn::BitCast(d32, even));
  return hn::GatherIndex(d32, args.wide_lut + args.half_lut, both);
}

template <class D32>
void store_outputs(D32 d32, hn::Vec<D32> a, const ProjectArgs& args, int j, int16_t* u) {
  const hn::Rebind<int16_t, D32> d16;
  const auto found = hn::DemoteTo(d16, look_up_vector(d32, a, args));
  const int lanes = int(hn::Lanes(d32));
  if (j + lanes <= args.out_dim) {
    hn::StoreU(found, d16, u + j);
    return;
  }
  HWY_ALIGN int16_t part[kOutputGroup];
  hn::StoreU(found, d16, part);
  for (int i = 0; j + i < args.out_dim; ++i) u[j + i] = part[i];
}

template <class T>
void quantize_all(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, T* q) {
  const auto row = exact_inverse(args.scale) != 0 ? quantize_row<true, T> : quantize_row<false, T>;
  for (int t = 0; t < args.tokens; ++t)
    row(tokens + t * row_stride, size_t(args.in_dim), args.scale, q + size_t(t) * padded_in(args.in_dim));
}

#if RUYICAM_HALVES
// Every output has two neighbouring lanes, one for either half of four products.
void multiply_all(const ProjectArgs& args, const int16_t* q, int16_t* u) {
  const hn::ScalableTag<int32_t> d32;
  const hn::RepartitionToNarrow<decltype(d32)> d16;
  const hn::Rebind<int8_t, decltype(d16)> d8;
  const hn::RepartitionToWide<decltype(d32)> d64;
  const size_t quads = padded_in(args.in_dim) / 4;
  const int lanes = int(hn::Lanes(d32)), outputs = lanes / 2;
  HWY_ALIGN int32_t sums[kOutputGroup];
  for (int t = 0; t < args.tokens; ++t, q += 4 * quads, u += args.out_dim)
    for (int j = 0; j < args.out_dim; j += lanes) {
      auto low = hn::Zero(d32), high = hn::Zero(d32), unused = hn::Zero(d32);
      const int8_t* w = args.packed + 4 * size_t(j);
      for (size_t k = 0; k < quads; ++k, w += 4 * size_t(args.padded_out)) {
        int64_t four;
        __builtin_memcpy(&four, q + 4 * k, 8);
        const auto x = hn::BitCast(d16, hn::Set(d64, four));
        low = hn::ReorderWidenMulAccumulate(d32, hn::PromoteTo(d16, hn::LoadU(d8, w)), x, low, unused);
        high = hn::ReorderWidenMulAccumulate(d32, hn::PromoteTo(d16, hn::LoadU(d8, w + 4 * outputs)), x, high, unused);
      }
      HWY_ALIGN int32_t pairs[2 * kOutputGroup];
      hn::Store(low, d32, pairs);
      hn::Store(high, d32, pairs + lanes);
      for (int i = 0; i < lanes; ++i) sums[i] = pairs[2 * i] + pairs[2 * i + 1];
      store_outputs(d32, hn::Add(hn::Load(d32, sums), hn::LoadU(d32, args.padded_bias + j)), args, j, u);
    }
}

#else
void multiply_all(const ProjectArgs& args, const int8_t* q, int16_t* u) {
  const hn::ScalableTag<int16_t> d16;
  const hn::Rebind<int8_t, decltype(d16)> d8;
  const hn::RepartitionToWide<decltype(d16)> d32;
  const size_t lanes = hn::Lanes(d16), dim = size_t(args.in_dim);
  for (int t = 0; t < args.tokens; ++t, q += padded_in(args.in_dim), u += args.out_dim)
    for (int j = 0; j < args.out_dim; ++j) {
      const int8_t* w = args.weight + size_t(j) * dim;
      auto sum0 = hn::Zero(d32), sum1 = hn::Zero(d32);
      size_t i = 0;
      for (; i + lanes <= dim; i += lanes) {
        const auto a = hn::PromoteTo(d16, hn::LoadU(d8, w + i)), b = hn::PromoteTo(d16, hn::LoadU(d8, q + i));
        sum0 = hn::ReorderWidenMulAccumulate(d32, a, b, sum0, sum1);
      }
      int32_t a = args.bias[j] + hn::GetLane(hn::SumOfLanes(d32, hn::Add(sum0, sum1)));
      for (; i < dim; ++i) a += int32_t(w[i]) * q[i];
      u[j] = look_up(args, a);
    }
}
#endif
void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u) {
  auto* q = static_cast<std::conditional_t<RUYICAM_HALVES, int16_t, int8_t>*>(args.scratch);
  quantize_all(args, tokens, row_stride, q);
  multiply_all(args, q, u);
}

void clip_l2(int16_t* u, size_t n, int32_t clip) {
  const hn::ScalableTag<int32_t> d32;
  const hn::Rebind<int16_t, decltype(d32)> d16;
  const hn::RepartitionToWide<hn::RebindToUnsigned<decltype(d32)>> du64;
  const size_t lanes = hn::Lanes(d32);
  const auto lower = hn::Set(du64, 0xffffffff);
  auto total = hn::Zero(du64);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto x = hn::PromoteTo(d32, hn::LoadU(d16, u + i));
    const auto square = hn::BitCast(du64, hn::Mul(x, x));
    total = hn::Add(total, hn::Add(hn::And(square, lower), hn::ShiftRight<32>(square)));
  }
  uint64_t sum = hn::GetLane(hn::SumOfLanes(du64, total));
  for (; i < n; ++i) sum += uint64_t(int64_t(u[i]) * u[i]);
  if (sum <= uint64_t(clip) * uint64_t(clip)) return;
  const int32_t factor = clip_factor(sum, clip);
  const hn::ScalableTag<int16_t> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const auto f = hn::Set(du, uint16_t(factor));
  for (i = 0; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto x = hn::LoadU(d, u + i);
    const auto size = hn::BitCast(d, hn::MulHigh(hn::BitCast(du, hn::Abs(x)), f));
    hn::StoreU(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Neg(size), size), d, u + i);
  }
  for (; i < n; ++i) u[i] = int16_t(int64_t(u[i]) * factor / 65536);
}
#endif  // HWY_SCALAR

}  // namespace ruyicam::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ruyicam::kernels {
namespace {
HWY_EXPORT(project);
HWY_EXPORT(clip_l2);
}  // namespace

namespace simd {
void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u) {
  switch (extension()) {
    case Extension::kVnni:
      if (vnni::can(args)) return vnni::project(args, tokens, row_stride, u);
      break;
    case Extension::kPairs:
      if (pairs::can(args)) return pairs::project(args, tokens, row_stride, u);
      break;
    case Extension::kDotprod: return dotprod::project(args, tokens, row_stride, u);
    case Extension::kI8mm: return i8mm::project(args, tokens, row_stride, u);
    case Extension::kNone: break;
  }
  HWY_DYNAMIC_DISPATCH(project)(args, tokens, row_stride, u);
}
void clip_l2(int16_t* u, size_t n, int32_t clip) {
  if (extension() == Extension::kVnni) return vnni::clip_l2(u, n, clip);
  HWY_DYNAMIC_DISPATCH(clip_l2)(u, n, clip);
}
}  // namespace simd
}  // namespace ruyicam::kernels
#endif  // HWY_ONCE
