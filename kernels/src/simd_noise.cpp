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

// count - 1 where a is above b: of masks that lie in registers of their own, one instruction less than a sum of masks.
template <class D, class V>
HWY_INLINE V count_above(D d, V a, V b, V count) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  return hn::IfThenElse(hn::Gt(a, b), hn::Sub(count, hn::Set(d, 1)), count);
#else
  return hn::Add(count, hn::VecFromMask(d, hn::Gt(a, b)));
#endif
}

// The upper half of a mirrored table tells the size of the noise, and the word's top bit its sign: the word w draws minus what
// ~w does. Every word is compared with all of that, so that the time does not depend on the noise.
void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, bool mirrored, int bits,
               int16_t* z) {
  const hn::ScalableTag<int64_t> d;
  constexpr size_t kVectors = 4;  // so that the table is read once for four of them
  const size_t lanes = hn::Lanes(d), step = kVectors * lanes;
  const int32_t high = (1 << (bits - 1)) - 1, low = -high - 1;
  // Unsigned order by signed compares: both sides have their top bit flipped.
  const uint64_t flip = uint64_t(1) << 63;
  const auto flips = hn::Set(d, int64_t(flip));
  const auto middle = hn::Set(d, int64_t(cdf_size / 2)), signs = hn::Set(d, mirrored ? -1 : 0);
  HWY_ALIGN int64_t noise[kVectors * HWY_MAX_BYTES / sizeof(int64_t)];
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
    auto w0 = load(0), w1 = load(1), w2 = load(2), w3 = load(3);
    // All ones where the other half of the table is meant.
    const auto sign = [&](auto w) { return hn::And(signs, hn::BroadcastSignBit(w)); };
    const auto s0 = sign(w0), s1 = sign(w1), s2 = sign(w2), s3 = sign(w3);
    w0 = hn::Xor(w0, s0), w1 = hn::Xor(w1, s1), w2 = hn::Xor(w2, s2), w3 = hn::Xor(w3, s3);
    auto c0 = hn::Zero(d), c1 = c0, c2 = c0, c3 = c0;  // minus the number of table entries above the word
    for (size_t k = mirrored ? cdf_size / 2 : 0; k < cdf_size; ++k) {
      const auto entry = hn::Set(d, int64_t(cdf[k] ^ flip));
      c0 = count_above(d, entry, w0, c0);
      c1 = count_above(d, entry, w1, c1);
      c2 = count_above(d, entry, w2, c2);
      c3 = count_above(d, entry, w3, c3);
    }
    const auto store = [&](auto c, auto s, size_t v) {
      hn::Store(hn::Sub(hn::Xor(hn::Add(middle, c), s), s), d, noise + v * lanes);
    };
    store(c0, s0, 0), store(c1, s1, 1), store(c2, s2, 2), store(c3, s3, 3);
    for (size_t j = 0; j < some; ++j) {
      const int32_t v = u[i + j] + int32_t(noise[j]);
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
void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, bool mirrored, int bits,
               int16_t* z) {
  HWY_DYNAMIC_DISPATCH(add_noise)(u, words, n, cdf, cdf_size, mirrored, bits, z);
}
}  // namespace simd
}  // namespace ruyicam::kernels
#endif  // HWY_ONCE
