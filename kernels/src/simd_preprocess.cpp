// Highway twins of portable.cpp's preprocessing: sums of rows of pixels, and the temporal part.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd_preprocess.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include "steps.hpp"

HWY_BEFORE_NAMESPACE();
namespace ruyicam::kernels::HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR
void average(const AverageArgs& args) { portable::average(args); }
void temporal(const TemporalArgs& args) { portable::temporal(args); }
#else
namespace hn = hwy::HWY_NAMESPACE;

// Weighted sums of the pixels of one column vector over the rows of a span, in registers of lanes of type T.
template <class T, class D = hn::ScalableTag<T>>
HWY_INLINE hn::Vec<D> add_rows(const AverageArgs& args, const Line::Span& span, int x) {
  const D d;
  const hn::Rebind<uint8_t, D> d8;
  const uint8_t* row = args.luma + span.first * args.stride + x;
  auto sum = hn::Mul(hn::PromoteTo(d, hn::LoadU(d8, row)), hn::Set(d, T(span.first_weight)));
  if (span.count == 1) return sum;
  row += args.stride;
  auto whole = hn::Zero(d);
  for (int r = 1; r < span.count - 1; ++r, row += args.stride)
    whole = hn::Add(whole, hn::PromoteTo(d, hn::LoadU(d8, row)));
  sum = hn::Add(sum, hn::Mul(whole, hn::Set(d, T(args.rows.pixel))));
  return hn::Add(sum, hn::Mul(hn::PromoteTo(d, hn::LoadU(d8, row)), hn::Set(d, T(span.last_weight))));
}

// Sums of four rows of the grid for the columns from x on, as [column][row]; how many columns were done.
template <class T>
int add_columns(const AverageArgs& args, const Line::Span* spans[kRowsAtOnce], int x) {
  const hn::ScalableTag<T> d;
  const hn::ScalableTag<uint32_t> d32;
  const int lanes = int(hn::Lanes(d)), lanes32 = int(hn::Lanes(d32));
  int done = x;
  for (; done + lanes <= args.width; done += lanes) {
    const auto a = add_rows<T>(args, *spans[0], done), b = add_rows<T>(args, *spans[1], done),
               c = add_rows<T>(args, *spans[2], done), e = add_rows<T>(args, *spans[3], done);
    uint32_t* to = args.sums + kRowsAtOnce * size_t(done);
    if constexpr (sizeof(T) == 4) {
      hn::StoreInterleaved4(a, b, c, e, d32, to);
    } else {
      const hn::Half<decltype(d)> half;
      const auto low = [&](auto v) { return hn::PromoteTo(d32, hn::LowerHalf(half, v)); };
      const auto high = [&](auto v) { return hn::PromoteTo(d32, hn::UpperHalf(half, v)); };
      hn::StoreInterleaved4(low(a), low(b), low(c), low(e), d32, to);
      hn::StoreInterleaved4(high(a), high(b), high(c), high(e), d32, to + kRowsAtOnce * size_t(lanes32));
    }
  }
  return done - x;
}

uint32_t sum_of_column(const AverageArgs& args, const Line::Span& span, int x) {
  uint32_t sum = 0;
  for (int r = 0; r < span.count; ++r)
    sum += args.rows.weight(span, r) * args.luma[(span.first + r) * args.stride + x];
  return sum;
}

void average(const AverageArgs& args) {
  const uint64_t area = args.area();
  // Sums of a cell are kept in 32 bits.
  if (255 * area >= uint64_t(1) << 32) return portable::average(args);
  const hn::CappedTag<uint32_t, kRowsAtOnce> four;
  static_assert(hn::MaxLanes(four) == kRowsAtOnce);
  const Divider over = args.divider();
  const int rows = int(args.rows.spans.size()), columns = int(args.columns.spans.size());
  // 255 * 257 is the largest sum that 16 bits hold.
  const bool narrow = args.rows.cell <= 257;
  const auto pixel = hn::Set(four, args.columns.pixel);
  for (int y = 0; y < rows; y += kRowsAtOnce) {
    const Line::Span* spans[kRowsAtOnce];
    for (int k = 0; k < kRowsAtOnce; ++k) spans[k] = &args.rows.spans[size_t(y + k < rows ? y + k : rows - 1)];
    for (int x = narrow ? add_columns<uint16_t>(args, spans, 0) : add_columns<uint32_t>(args, spans, 0); x < args.width; ++x)
      for (int k = 0; k < kRowsAtOnce; ++k) args.sums[kRowsAtOnce * x + k] = sum_of_column(args, *spans[k], x);
    int32_t* cell = args.current + size_t(y) * size_t(columns);
    for (int j = 0; j < columns; ++j) {
      const Line::Span& across = args.columns.spans[size_t(j)];
      const uint32_t* s = args.sums + kRowsAtOnce * size_t(across.first);
      auto sum = hn::Mul(hn::LoadU(four, s), hn::Set(four, across.first_weight));
      if (across.count > 1) {
        auto whole = hn::Zero(four);
        for (int i = 1; i < across.count - 1; ++i) whole = hn::Add(whole, hn::LoadU(four, s + kRowsAtOnce * i));
        const auto last = hn::LoadU(four, s + kRowsAtOnce * (across.count - 1));
        sum = hn::Add(sum, hn::Add(hn::Mul(whole, pixel), hn::Mul(last, hn::Set(four, across.last_weight))));
      }
      HWY_ALIGN uint32_t sums[kRowsAtOnce];
      hn::Store(sum, four, sums);
      for (int k = 0; k < kRowsAtOnce && y + k < rows; ++k)
        cell[size_t(k) * size_t(columns) + size_t(j)] = int32_t(over(16 * uint64_t(sums[k]) + area / 2));
    }
  }
}

// All but the background fits 16 bits.
void temporal(const TemporalArgs& args) {
  const hn::ScalableTag<int32_t> d32;
  const hn::Repartition<int16_t, decltype(d32)> d;
  const hn::Half<decltype(d)> half;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const size_t part = hn::Lanes(d32), lanes = 2 * part;
  const auto zero = hn::Zero(d), least = hn::Set(d, -127), four = hn::Set(d, 4);
  const auto floor = hn::Set(d, int16_t(args.floor)), full = hn::Set(d, 128), grey = hn::Set(d, 2048);
  const auto join = [&](auto low, auto high) { return hn::Combine(d, hn::DemoteTo(half, high), hn::DemoteTo(half, low)); };
  const auto small = [&](auto x) { return hn::Max(hn::ShiftRight<3>(hn::Add(x, four)), least); };  // storing saturates at 127
  const auto moved = [&](auto a, auto b) {
    return hn::Add(b, hn::ShiftRightSame(hn::Sub(hn::ShiftLeft<8>(a), b), args.shift));
  };
  size_t i = 0;
  for (; i + lanes <= args.cells; i += lanes) {
    const auto a0 = hn::LoadU(d32, args.current + i), a1 = hn::LoadU(d32, args.current + i + part);
    const auto b0 = hn::LoadU(d32, args.background + i), b1 = hn::LoadU(d32, args.background + i + part);
    const auto a = join(a0, a1);
    const auto before = join(hn::LoadU(d32, args.previous + i), hn::LoadU(d32, args.previous + i + part));
    const auto from = hn::Sub(a, join(hn::ShiftRight<8>(b0), hn::ShiftRight<8>(b1)));
    const auto w = hn::Min(hn::Max(hn::Sub(hn::Abs(from), floor), zero), full);
    const auto luma = hn::ShiftRight<7>(hn::Mul(hn::ShiftRight<4>(hn::Sub(a, grey)), w));
    hn::StoreU(hn::DemoteTo(d8, luma), d8, args.out + i);
    hn::StoreU(hn::DemoteTo(d8, small(hn::Sub(a, before))), d8, args.out + args.cells + i);
    hn::StoreU(hn::DemoteTo(d8, small(from)), d8, args.out + 2 * args.cells + i);
    hn::StoreU(moved(a0, b0), d32, args.background + i);
    hn::StoreU(moved(a1, b1), d32, args.background + i + part);
  }
  if (i < args.cells) portable::temporal_from(args, i);
}
#endif  // HWY_SCALAR

}  // namespace ruyicam::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ruyicam::kernels {
namespace {
HWY_EXPORT(average);
HWY_EXPORT(temporal);
}  // namespace

namespace simd {
void average(const AverageArgs& args) {
  const Extension e = extension();
  if (e == Extension::kVnni && vnni::can(args)) return vnni::average(args);
  if (e == Extension::kPairs && pairs::can(args)) return pairs::average(args);
  if ((e == Extension::kDotprod || e == Extension::kI8mm) && dotprod::can(args)) return dotprod::average(args);
  HWY_DYNAMIC_DISPATCH(average)(args);
}
void temporal(const TemporalArgs& args) {
  if (extension() == Extension::kVnni) return vnni::temporal(args);
  HWY_DYNAMIC_DISPATCH(temporal)(args);
}
}  // namespace simd
}  // namespace ruyicam::kernels
#endif  // HWY_ONCE
