// Highway twins of portable.cpp's noise: ChaCha20 with one block per lane, and the scan of the noise table.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd_noise.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>

#include <hwy/highway.h>

#include "chacha20_state.hpp"
#include "steps.hpp"

HWY_BEFORE_NAMESPACE();
namespace ruyicam::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class V>
HWY_INLINE void quarter_round(V& a, V& b, V& c, V& d) {
  a = hn::Add(a, b), d = hn::RotateRight<16>(hn::Xor(d, a));
  c = hn::Add(c, d), b = hn::RotateRight<20>(hn::Xor(b, c));
  a = hn::Add(a, b), d = hn::RotateRight<24>(hn::Xor(d, a));
  c = hn::Add(c, d), b = hn::RotateRight<25>(hn::Xor(b, c));
}

void noise_words(const uint8_t* key, uint64_t release, uint64_t* words, size_t count) {
  const hn::ScalableTag<uint32_t> d;
  using V = hn::Vec<decltype(d)>;
  const size_t blocks = hn::Lanes(d);
  uint32_t state[16];
  chacha20_state(key, release, state);
  HWY_ALIGN uint32_t lanes[16 * HWY_MAX_BYTES / 4];
  for (uint32_t first = 0; size_t(first) * 8 < count; first += uint32_t(blocks)) {
    V begin[16], x[16];
    for (int i = 0; i < 16; ++i) begin[i] = hn::Set(d, state[i]);
    begin[12] = hn::Iota(d, first);
    for (int i = 0; i < 16; ++i) x[i] = begin[i];
    for (int round = 0; round < 10; ++round) {
      quarter_round(x[0], x[4], x[8], x[12]);
      quarter_round(x[1], x[5], x[9], x[13]);
      quarter_round(x[2], x[6], x[10], x[14]);
      quarter_round(x[3], x[7], x[11], x[15]);
      quarter_round(x[0], x[5], x[10], x[15]);
      quarter_round(x[1], x[6], x[11], x[12]);
      quarter_round(x[2], x[7], x[8], x[13]);
      quarter_round(x[3], x[4], x[9], x[14]);
    }
    for (int i = 0; i < 16; ++i) hn::Store(hn::Add(x[i], begin[i]), d, lanes + size_t(i) * blocks);
    const size_t left = std::min(count - size_t(first) * 8, blocks * 8);
    uint64_t* to = words + size_t(first) * 8;
    for (size_t b = 0; b * 8 < left; ++b)
      for (size_t k = 0; k < std::min<size_t>(8, left - b * 8); ++k)
        to[b * 8 + k] = uint64_t(lanes[2 * k * blocks + b]) | uint64_t(lanes[(2 * k + 1) * blocks + b]) << 32;
  }
}

void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, int bits,
               int16_t* z) {
  const hn::ScalableTag<int64_t> d;
  constexpr size_t kVectors = 4;  // so that the table is read once for four of them
  const size_t lanes = hn::Lanes(d), step = kVectors * lanes;
  const int32_t high = (1 << (bits - 1)) - 1, low = -high - 1;
  // Unsigned order by signed compares: both sides have their top bit flipped.
  const uint64_t flip = uint64_t(1) << 63;
  const auto flips = hn::Set(d, int64_t(flip));
  HWY_ALIGN int64_t counts[kVectors * HWY_MAX_BYTES / sizeof(int64_t)];
  HWY_ALIGN uint64_t last[kVectors * HWY_MAX_BYTES / sizeof(int64_t)];
  for (size_t i = 0; i < n; i += step) {
    const size_t some = std::min(step, n - i);
    const uint64_t* from = words + i;
    if (some < step) {
      std::fill(std::copy(from, from + some, last), last + step, 0);
      from = last;
    }
    const auto load = [&](size_t v) {
      return hn::Xor(hn::LoadU(d, reinterpret_cast<const int64_t*>(from + v * lanes)), flips);
    };
    const auto w0 = load(0), w1 = load(1), w2 = load(2), w3 = load(3);
    auto c0 = hn::Zero(d), c1 = c0, c2 = c0, c3 = c0;  // minus the number of table entries above the word
    for (size_t k = 0; k < cdf_size; ++k) {
      const auto entry = hn::Set(d, int64_t(cdf[k] ^ flip));
      c0 = hn::Add(c0, hn::VecFromMask(d, hn::Gt(entry, w0)));
      c1 = hn::Add(c1, hn::VecFromMask(d, hn::Gt(entry, w1)));
      c2 = hn::Add(c2, hn::VecFromMask(d, hn::Gt(entry, w2)));
      c3 = hn::Add(c3, hn::VecFromMask(d, hn::Gt(entry, w3)));
    }
    hn::Store(c0, d, counts), hn::Store(c1, d, counts + lanes);
    hn::Store(c2, d, counts + 2 * lanes), hn::Store(c3, d, counts + 3 * lanes);
    for (size_t j = 0; j < some; ++j) {
      const int32_t v = u[i + j] + int32_t(cdf_size / 2) + int32_t(counts[j]);
      z[i + j] = int16_t(std::clamp(v, low, high));
    }
  }
}

}  // namespace ruyicam::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ruyicam::kernels {
namespace {
HWY_EXPORT(noise_words);
HWY_EXPORT(add_noise);
}  // namespace

namespace simd {
void noise_words(const uint8_t* key, uint64_t release, uint64_t* words, size_t count) {
  HWY_DYNAMIC_DISPATCH(noise_words)(key, release, words, count);
}
void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, int bits,
               int16_t* z) {
  HWY_DYNAMIC_DISPATCH(add_noise)(u, words, n, cdf, cdf_size, bits, z);
}
}  // namespace simd
}  // namespace ruyicam::kernels
#endif  // HWY_ONCE
