// The mapping by hand for AVX2: weights are widened once for several tokens, and each of a 32-bit lane's sums takes two
// products at once. Sizes that `can` refuses take the Highway version.
#include "steps.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cstring>

#include "pairs.hpp"

namespace ruyicam::kernels::pairs {
namespace {

// Tokens in flight, each with two sums of eight outputs' halves: with weights and one product they fill the sixteen registers.
constexpr int kTokens = 6;

template <bool kMultiply>
RUYICAM_PAIRS inline __m256i quantize(const float* h, __m256 scale) {
  __m256 x = _mm256_loadu_ps(h);
  x = kMultiply ? _mm256_mul_ps(x, scale) : _mm256_div_ps(x, scale);
  // The operand that is no number comes second, and is what these give then; converted it is INT32_MIN.
  x = _mm256_max_ps(_mm256_set1_ps(-127), _mm256_min_ps(_mm256_set1_ps(127), x));
  return _mm256_cvtps_epi32(x);
}

template <bool kMultiply>
RUYICAM_PAIRS void quantize_rows(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int rows, int16_t* q) {
  const __m256 scale = _mm256_set1_ps(kMultiply ? 1.0f / args.scale : args.scale);
  const __m256i none = _mm256_set1_epi16(INT16_MIN);
  const size_t dim = size_t(args.in_dim), padded = padded_in(args.in_dim);
  for (int t = 0; t < rows; ++t, tokens += row_stride, q += padded) {
    size_t i = 0;
    for (; i + 16 <= dim; i += 16) {
      // Packing interleaves its two halves by lanes of 128 bits.
      const __m256i both = _mm256_permute4x64_epi64(
          _mm256_packs_epi32(quantize<kMultiply>(tokens + i, scale), quantize<kMultiply>(tokens + i + 8, scale)), 0xd8);
      store(q + i, _mm256_andnot_si256(_mm256_cmpeq_epi16(both, none), both));
    }
    for (; i < dim; ++i) q[i] = kernels::quantize(tokens[i], args.scale);
    for (; i < padded; ++i) q[i] = 0;
  }
}

RUYICAM_PAIRS inline __m128i look_up(__m256i sum, const ProjectArgs& args) {
  const NarrowIndex& n = *args.narrow;
  sum = _mm256_min_epi32(_mm256_max_epi32(sum, _mm256_set1_epi32(n.low)), _mm256_set1_epi32(n.high));
  sum = _mm256_add_epi32(_mm256_mullo_epi32(sum, _mm256_set1_epi32(args.multiplier)), _mm256_set1_epi32(n.round));
  const __m256i index = _mm256_sra_epi32(sum, _mm_cvtsi32_si128(args.shift));
  const __m256i found = _mm256_i32gather_epi32(args.wide_lut + args.half_lut, index, 4);
  return _mm_packs_epi32(_mm256_castsi256_si128(found), _mm256_extracti128_si256(found, 1));
}

// kT tokens and eight outputs from output j on.
template <int kT>
RUYICAM_PAIRS void outputs(const ProjectArgs& args, const int16_t* q, int j, int16_t* u) {
  const size_t padded = padded_in(args.in_dim), step = 4 * size_t(args.padded_out);
  // Every output has two neighbouring lanes, one for either half of four products; outputs 0 to 3, and 4 to 7.
  __m256i low[kT], high[kT];
#pragma GCC unroll 6
  for (int t = 0; t < kT; ++t) low[t] = high[t] = _mm256_setzero_si256();
  const int8_t* w = args.packed + 4 * size_t(j);
  for (size_t k = 0; k < padded; k += 4, w += step) {
    const __m256i a = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
    const __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16)));
#pragma GCC unroll 6
    for (int t = 0; t < kT; ++t) {
      int64_t four;
      std::memcpy(&four, q + size_t(t) * padded + k, sizeof four);
      const __m256i x = _mm256_set1_epi64x(four);
      add_products(low[t], x, a);
      add_products(high[t], x, b);
    }
  }
  const __m256i bias = load(args.padded_bias + j);
  const int left = args.out_dim - j;
#pragma GCC unroll 6
  for (int t = 0; t < kT; ++t) {
    const __m256i sum = _mm256_permute4x64_epi64(_mm256_hadd_epi32(low[t], high[t]), 0xd8);
    const __m128i found = look_up(_mm256_add_epi32(sum, bias), args);
    int16_t* to = u + t * args.out_dim + j;
    if (left >= 8) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), found);
    } else {
      int16_t part[8];
      _mm_storeu_si128(reinterpret_cast<__m128i*>(part), found);
      std::memcpy(to, part, size_t(left) * sizeof(int16_t));
    }
  }
}

}  // namespace

bool runs_here() {
  static const bool yes = __builtin_cpu_supports("avx2");
  return yes;
}

bool can(const ProjectArgs& args) { return args.narrow->fits; }

RUYICAM_PAIRS void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u) {
  auto* q = static_cast<int16_t*>(args.scratch);
  const auto quantize = exact_inverse(args.scale) != 0 ? quantize_rows<true> : quantize_rows<false>;
  for (int t = 0; t < args.tokens;) {
    const int left = args.tokens - t, rows = left >= kTokens ? kTokens : (left >= 3 ? 3 : 1);
    quantize(args, tokens + t * row_stride, row_stride, rows, q);
    for (int j = 0; j < args.out_dim; j += 8)
      (rows == kTokens ? outputs<kTokens> : (rows == 3 ? outputs<3> : outputs<1>))(args, q, j, u + t * args.out_dim);
    t += rows;
  }
}

}  // namespace ruyicam::kernels::pairs

#else

namespace ruyicam::kernels::pairs {
bool runs_here() { return false; }
bool can(const ProjectArgs&) { return false; }
void project(const ProjectArgs&, const float*, ptrdiff_t, int16_t*) {}
}  // namespace ruyicam::kernels::pairs
#endif
