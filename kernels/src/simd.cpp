// Highway twins of portable.cpp, compiled once per instruction set and chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include "steps.hpp"

HWY_BEFORE_NAMESPACE();
namespace ruyicam::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void quantize(const float* h, size_t n, float scale, int8_t* q) {
  const hn::ScalableTag<float> df;
  const hn::Rebind<int8_t, decltype(df)> di8;
  const size_t lanes = hn::Lanes(df);
  const auto s = hn::Set(df, scale), low = hn::Set(df, -127.0f), high = hn::Set(df, 127.0f);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    auto x = hn::Div(hn::LoadU(df, h + i), s);
    x = hn::IfThenElseZero(hn::Eq(x, x), x);
    x = hn::Min(hn::Max(x, low), high);
    hn::StoreU(hn::DemoteTo(di8, hn::NearestInt(x)), di8, q + i);
  }
  if (i < n) portable::quantize(h + i, n - i, scale, q + i);
}

void project_token(const ProjectArgs& args, const int8_t* q, int16_t* u) {
  const hn::ScalableTag<int16_t> d16;
  const hn::Rebind<int8_t, decltype(d16)> d8;
  const hn::RepartitionToWide<decltype(d16)> d32;
  const size_t lanes = hn::Lanes(d16), dim = size_t(args.in_dim);
  for (int j = 0; j < args.out_dim; ++j) {
    const int8_t* w = args.weight + size_t(j) * dim;
    auto sum0 = hn::Zero(d32), sum1 = hn::Zero(d32);
    size_t i = 0;
    for (; i + lanes <= dim; i += lanes) {
      const auto a = hn::PromoteTo(d16, hn::LoadU(d8, w + i));
      const auto b = hn::PromoteTo(d16, hn::LoadU(d8, q + i));
      sum0 = hn::ReorderWidenMulAccumulate(d32, a, b, sum0, sum1);
    }
    int32_t a = args.bias[j] + hn::GetLane(hn::SumOfLanes(d32, hn::Add(sum0, sum1)));
    for (; i < dim; ++i) a += int32_t(w[i]) * q[i];
    u[j] = look_up(args, a);
  }
}

void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, int bits,
               int16_t* z) {
  const hn::ScalableTag<int64_t> d;
  const size_t lanes = hn::Lanes(d);
  const int32_t high = (1 << (bits - 1)) - 1, low = -high - 1;
  // Unsigned order by signed compares: both sides have their top bit flipped.
  const uint64_t flip = uint64_t(1) << 63;
  HWY_ALIGN int64_t counts[HWY_MAX_BYTES / sizeof(int64_t)];
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto w = hn::Xor(hn::LoadU(d, reinterpret_cast<const int64_t*>(words + i)), hn::Set(d, int64_t(flip)));
    auto below = hn::Zero(d);  // minus the number of table entries above the word
    for (size_t k = 0; k < cdf_size; ++k)
      below = hn::Add(below, hn::VecFromMask(d, hn::Gt(hn::Set(d, int64_t(cdf[k] ^ flip)), w)));
    hn::Store(below, d, counts);
    for (size_t lane = 0; lane < lanes; ++lane) {
      const int32_t v = u[i + lane] + int32_t(cdf_size / 2) + int32_t(counts[lane]);
      z[i + lane] = int16_t(v < low ? low : (v > high ? high : v));
    }
  }
  if (i < n) portable::add_noise(u + i, words + i, n - i, cdf, cdf_size, bits, z + i);
}

void accumulate_row(const uint8_t* row, size_t n, uint32_t weight, uint32_t* sums) {
  const hn::ScalableTag<uint32_t> d32;
  const hn::Rebind<uint8_t, decltype(d32)> d8;
  const size_t lanes = hn::Lanes(d32);
  const auto w = hn::Set(d32, weight);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto x = hn::PromoteTo(d32, hn::LoadU(d8, row + i));
    hn::StoreU(hn::Add(hn::Mul(x, w), hn::LoadU(d32, sums + i)), d32, sums + i);
  }
  if (i < n) portable::accumulate_row(row + i, n - i, weight, sums + i);
}

}  // namespace ruyicam::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <stdexcept>

#include "ruyicam/kernels/dispatch.hpp"

namespace ruyicam::kernels {

namespace {
HWY_EXPORT(quantize);
HWY_EXPORT(project_token);
HWY_EXPORT(add_noise);
HWY_EXPORT(accumulate_row);
}  // namespace

namespace simd {

void quantize(const float* h, size_t n, float scale, int8_t* q) { HWY_DYNAMIC_DISPATCH(quantize)(h, n, scale, q); }

void project_token(const ProjectArgs& args, const int8_t* q, int16_t* u) {
  HWY_DYNAMIC_DISPATCH(project_token)(args, q, u);
}

void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, int bits,
               int16_t* z) {
  HWY_DYNAMIC_DISPATCH(add_noise)(u, words, n, cdf, cdf_size, bits, z);
}

void accumulate_row(const uint8_t* row, size_t n, uint32_t weight, uint32_t* sums) {
  HWY_DYNAMIC_DISPATCH(accumulate_row)(row, n, weight, sums);
}

}  // namespace simd

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
#endif  // HWY_ONCE
