// Highway twins of portable.cpp's preprocessing: sums of rows of pixels, and the temporal part.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd_preprocess.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include "steps.hpp"

HWY_BEFORE_NAMESPACE();
namespace ruyicam::kernels::HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR
void add_rows(const RowSpan& span, size_t width, uint32_t* sums) { portable::add_rows(span, width, sums); }
void temporal(const TemporalArgs& args) { portable::temporal(args); }
#else
namespace hn = hwy::HWY_NAMESPACE;

// Weighted sums of the rows over `columns`, kept in registers of lanes of type T until all rows are added.
template <class T>
void add_columns(const RowSpan& span, size_t first, size_t columns, uint32_t* sums) {
  const hn::ScalableTag<T> d;
  const hn::Rebind<uint8_t, decltype(d)> d8;
  const hn::ScalableTag<uint32_t> d32;
  const size_t lanes = hn::Lanes(d);
  for (size_t x = first; x < first + columns; x += 2 * lanes) {
    auto a = hn::Zero(d), b = hn::Zero(d);
    const uint8_t* row = span.first + x;
    for (int r = 0; r < span.rows; ++r, row += span.stride) {
      const auto w = hn::Set(d, T(span.weight(r)));
      a = hn::Add(a, hn::Mul(hn::PromoteTo(d, hn::LoadU(d8, row)), w));
      b = hn::Add(b, hn::Mul(hn::PromoteTo(d, hn::LoadU(d8, row + lanes)), w));
    }
    if constexpr (sizeof(T) == 4) {
      hn::StoreU(a, d, sums + x);
      hn::StoreU(b, d, sums + x + lanes);
    } else {
      const hn::Half<decltype(d)> half;
      const size_t quarter = hn::Lanes(d32);
      hn::StoreU(hn::PromoteTo(d32, hn::LowerHalf(half, a)), d32, sums + x);
      hn::StoreU(hn::PromoteTo(d32, hn::UpperHalf(half, a)), d32, sums + x + quarter);
      hn::StoreU(hn::PromoteTo(d32, hn::LowerHalf(half, b)), d32, sums + x + 2 * quarter);
      hn::StoreU(hn::PromoteTo(d32, hn::UpperHalf(half, b)), d32, sums + x + 3 * quarter);
    }
  }
}

void add_rows(const RowSpan& span, size_t width, uint32_t* sums) {
  uint32_t total = 0;
  for (int r = 0; r < span.rows; ++r) total += span.weight(r);
  // 255 * 257 is the largest sum that 16 bits hold.
  const bool narrow = total <= 257;
  const size_t step = 2 * (narrow ? hn::Lanes(hn::ScalableTag<uint16_t>()) : hn::Lanes(hn::ScalableTag<uint32_t>()));
  const size_t whole = width / step * step;
  narrow ? add_columns<uint16_t>(span, 0, whole, sums) : add_columns<uint32_t>(span, 0, whole, sums);
  if (whole < width) {
    RowSpan rest = span;
    rest.first += whole;
    portable::add_rows(rest, width - whole, sums + whole);
  }
}

void temporal(const TemporalArgs& args) {
  const hn::ScalableTag<int32_t> d;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const size_t lanes = hn::Lanes(d);
  const auto zero = hn::Zero(d), most = hn::Set(d, 127), least = hn::Set(d, -127), four = hn::Set(d, 4);
  const auto floor = hn::Set(d, args.floor), full = hn::Set(d, 128), grey = hn::Set(d, 2048);
  const auto small = [&](auto x) { return hn::Min(hn::Max(hn::ShiftRight<3>(hn::Add(x, four)), least), most); };
  size_t i = 0;
  for (; i + lanes <= args.cells; i += lanes) {
    const auto a = hn::LoadU(d, args.current + i), before = hn::LoadU(d, args.previous + i);
    const auto background = hn::LoadU(d, args.background + i);
    const auto from = hn::Sub(a, hn::ShiftRight<8>(background));
    const auto w = hn::Min(hn::Max(hn::Sub(hn::Abs(from), floor), zero), full);
    const auto luma = hn::ShiftRight<7>(hn::Mul(hn::ShiftRight<4>(hn::Sub(a, grey)), w));
    hn::StoreU(hn::DemoteTo(d8, luma), d8, args.out + i);
    hn::StoreU(hn::DemoteTo(d8, small(hn::Sub(a, before))), d8, args.out + args.cells + i);
    hn::StoreU(hn::DemoteTo(d8, small(from)), d8, args.out + 2 * args.cells + i);
    const auto change = hn::ShiftRightSame(hn::Sub(hn::ShiftLeft<8>(a), background), args.shift);
    hn::StoreU(hn::Add(background, change), d, args.background + i);
  }
  if (i < args.cells) portable::temporal_from(args, i);
}
#endif  // HWY_SCALAR

}  // namespace ruyicam::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ruyicam::kernels {
namespace {
HWY_EXPORT(add_rows);
HWY_EXPORT(temporal);
}  // namespace

namespace simd {
void add_rows(const RowSpan& span, size_t width, uint32_t* sums) { HWY_DYNAMIC_DISPATCH(add_rows)(span, width, sums); }
void temporal(const TemporalArgs& args) { HWY_DYNAMIC_DISPATCH(temporal)(args); }
}  // namespace simd
}  // namespace ruyicam::kernels
#endif  // HWY_ONCE
