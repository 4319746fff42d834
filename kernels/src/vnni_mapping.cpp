// The mapping by hand for AVX-512 with VNNI: tokens are rounded and packed to bytes, and every 32-bit lane adds up four
// products at once. Sizes that `can` refuses take the Highway version.
#include "steps.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cstring>

#include "vnni.hpp"

namespace ruyicam::kernels::vnni {
namespace {

// Sums in flight: enough to hide the latency of the products. Loops over them are unrolled, or they would live in memory.
constexpr int kTokens = 12, kWideTokens = 6, kGroups = 2;

template <bool kMultiply>
RUYICAM_VNNI inline __m512 scaled(__m512 x, __m512 scale) {
  return kMultiply ? _mm512_mul_ps(x, scale) : _mm512_div_ps(x, scale);
}

// What is no number becomes 0, what is too large 127; what is too small INT32_MIN, which packing makes -128.
RUYICAM_VNNI inline __m512i round_any(__m512 x) {
  const __mmask16 number = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
  return _mm512_maskz_cvtps_epi32(number, _mm512_min_ps(x, _mm512_set1_ps(127)));
}

RUYICAM_VNNI inline __m512i pack(__m512i a, __m512i b, __m512i c, __m512i d) {
  return _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
}

template <bool kMultiply>
RUYICAM_VNNI inline __m512i quantize_chunk(__m512 a, __m512 b, __m512 c, __m512 d, __m512 scale) {
  a = scaled<kMultiply>(a, scale), b = scaled<kMultiply>(b, scale);
  c = scaled<kMultiply>(c, scale), d = scaled<kMultiply>(d, scale);
  const __m512i least = _mm512_set1_epi8(-128);
  __m512i q = pack(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b), _mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
  // -128 is what is not between -127.5 and 2^31: rare, and looked at again.
  if (__builtin_expect(_mm512_cmpeq_epi8_mask(q, least) != 0, 0))
    q = _mm512_max_epi8(pack(round_any(a), round_any(b), round_any(c), round_any(d)), _mm512_set1_epi8(-127));
  // Plus 128: VNNI multiplies unsigned by signed; the bias makes up for it.
  return _mm512_xor_si512(q, least);
}

template <bool kMultiply>
RUYICAM_VNNI void quantize_rows(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int rows, uint8_t* q) {
  const __m512 scale = _mm512_set1_ps(kMultiply ? 1.0f / args.scale : args.scale);
  const size_t dim = size_t(args.in_dim), whole = dim / 64 * 64;
  const uint64_t keep = (uint64_t(1) << (dim - whole)) - 1;
  const auto k0 = __mmask16(keep), k1 = __mmask16(keep >> 16), k2 = __mmask16(keep >> 32), k3 = __mmask16(keep >> 48);
  for (int t = 0; t < rows; ++t, tokens += row_stride) {
    const float* h = tokens;
    for (size_t i = 0; i < whole; i += 64, h += 64, q += 64)
      _mm512_storeu_si512(q, quantize_chunk<kMultiply>(_mm512_loadu_ps(h), _mm512_loadu_ps(h + 16), _mm512_loadu_ps(h + 32),
                                                       _mm512_loadu_ps(h + 48), scale));
    if (whole == dim) continue;
    _mm512_storeu_si512(q, quantize_chunk<kMultiply>(_mm512_maskz_loadu_ps(k0, h), _mm512_maskz_loadu_ps(k1, h + 16),
                                                     _mm512_maskz_loadu_ps(k2, h + 32), _mm512_maskz_loadu_ps(k3, h + 48), scale));
    q += 64;
  }
}

// Sums to table indices, 32 bits each, of which the low byte counts.
RUYICAM_VNNI inline __m512i index_of(__m512i sum, const ProjectArgs& args) {
  const NarrowIndex& n = *args.narrow;
  sum = _mm512_min_epi32(_mm512_max_epi32(sum, _mm512_set1_epi32(n.low)), _mm512_set1_epi32(n.high));
  sum = _mm512_add_epi32(_mm512_mullo_epi32(sum, _mm512_set1_epi32(args.multiplier)), _mm512_set1_epi32(n.round));
  return _mm512_sra_epi32(sum, _mm_cvtsi32_si128(args.shift));
}

// The table in eight registers, 32 entries each.
struct Table {
  __m512i part[8];
};

RUYICAM_VNNI inline Table load_table(const ProjectArgs& args) {
  Table t;
  for (int i = 0; i < 8; ++i) t.part[i] = _mm512_loadu_si512(args.narrow->table + 32 * i);
  return t;
}

// 32 indices in 16 bits to 32 entries.
RUYICAM_VNNI inline __m512i look_up(__m512i index, const Table& t) {
  const __mmask32 bit6 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
  const __mmask32 bit7 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(128));
  const __m512i a = _mm512_permutex2var_epi16(t.part[0], index, t.part[1]);
  const __m512i b = _mm512_permutex2var_epi16(t.part[2], index, t.part[3]);
  const __m512i c = _mm512_permutex2var_epi16(t.part[4], index, t.part[5]);
  const __m512i d = _mm512_permutex2var_epi16(t.part[6], index, t.part[7]);
  return _mm512_mask_blend_epi16(bit7, _mm512_mask_blend_epi16(bit6, a, b), _mm512_mask_blend_epi16(bit6, c, d));
}

RUYICAM_VNNI inline __m512i join(__m256i low, __m256i high) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

inline int32_t load_quad(const uint8_t* q) {
  int32_t four;
  std::memcpy(&four, q, 4);
  return four;
}

// kT tokens, at most eight outputs each: a lane of 256 bits is an output. kRow: bytes of a rounded token, 0 if not known.
template <int kT, size_t kRow>
RUYICAM_VNNI void few_outputs(const ProjectArgs& args, const uint8_t* q, const Table& table, int16_t* u) {
  constexpr int kPadded = (kT + 3) / 4 * 4;
  const size_t chunked = kRow ? kRow : chunked_in(args.in_dim), step = 4 * size_t(args.padded_out);
  __m256i sum[kPadded];
  const __m256i bias = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(args.shifted_bias));
#pragma GCC unroll 12
  for (int t = 0; t < kPadded; ++t) sum[t] = bias;
  const int8_t* w = args.chunked;
  for (size_t k = 0; k < chunked; k += 4, w += step) {
    const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
#pragma GCC unroll 12
    for (int t = 0; t < kT; ++t)
      add_products(sum[t], _mm256_set1_epi32(load_quad(q + size_t(t) * chunked + k)), weights);
  }
#pragma GCC unroll 3
  for (int t = 0; t < kPadded; t += 4) {
    const __m512i low = index_of(join(sum[t], sum[t + 1]), args), high = index_of(join(sum[t + 2], sum[t + 3]), args);
    const __m512i found = look_up(join(_mm512_cvtepi32_epi16(low), _mm512_cvtepi32_epi16(high)), table);
    if (t + 4 <= kT && args.out_dim == 8) {
      _mm512_storeu_si512(u + 8 * t, found);
      continue;
    }
    int16_t part[32];
    _mm512_storeu_si512(part, found);
    for (int i = t; i < kT && i < t + 4; ++i)
      std::memcpy(u + i * args.out_dim, part + 8 * (i - t), size_t(args.out_dim) * sizeof(int16_t));
  }
}

// Rows of at most 64 numbers, two by two: quads of both take turns, those of `pair_place`.
template <bool kMultiply>
RUYICAM_VNNI void quantize_pairs(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int rows, uint8_t* q) {
  const __m512 scale = _mm512_set1_ps(kMultiply ? 1.0f / args.scale : args.scale);
  const uint64_t keep = ~uint64_t(0) >> (64 - args.in_dim);
  const auto k0 = __mmask16(keep), k1 = __mmask16(keep >> 16), k2 = __mmask16(keep >> 32), k3 = __mmask16(keep >> 48);
  const auto row = [&](const float* h) RUYICAM_VNNI {
    return quantize_chunk<kMultiply>(_mm512_maskz_loadu_ps(k0, h), _mm512_maskz_loadu_ps(k1, h + 16),
                                     _mm512_maskz_loadu_ps(k2, h + 32), _mm512_maskz_loadu_ps(k3, h + 48), scale);
  };
  for (int t = 0; t < rows; t += 2, tokens += 2 * row_stride, q += 128) {
    const __m512i a = row(tokens), b = row(tokens + row_stride);
    _mm512_storeu_si512(q, _mm512_unpacklo_epi32(a, b));
    _mm512_storeu_si512(q + 64, _mm512_unpackhi_epi32(a, b));
  }
}

// Where quad k of both rows of a pair begins.
constexpr size_t pair_place(size_t k) { return k % 4 / 2 * 64 + k / 4 * 16 + k % 2 * 8; }

inline int64_t load_pair(const uint8_t* q) {
  int64_t eight;
  std::memcpy(&eight, q, 8);
  return eight;
}

// The low halves of the lanes of two pairs, token by token.
constexpr int16_t kTokenByToken[] = {0,  4,  8,  12, 16, 20, 24, 28, 2,  6,  10, 14, 18, 22, 26, 30,
                                     32, 36, 40, 44, 48, 52, 56, 60, 34, 38, 42, 46, 50, 54, 58, 62};

// kT tokens of at most 64 inputs, eight outputs each: the lanes of an output are those of both tokens of a pair.
template <int kT>
RUYICAM_VNNI void eight_outputs(const ProjectArgs& args, const uint8_t* q, const Table& table, int16_t* u) {
  constexpr int kPairs = kT / 2;
  const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  const size_t step = 4 * size_t(args.padded_out);
  // Quads take turns between two sums: one alone would wait for itself.
  __m512i sum[kPairs][2];
  const __m512i bias = _mm512_permutexvar_epi32(twice, _mm512_loadu_si512(args.shifted_bias));
#pragma GCC unroll 6
  for (int p = 0; p < kPairs; ++p) sum[p][0] = bias, sum[p][1] = _mm512_setzero_si512();
#pragma GCC unroll 16
  for (size_t k = 0; k < 16; ++k) {
    const __m512i weights = _mm512_permutexvar_epi32(twice, _mm512_loadu_si512(args.chunked + k * step));
#pragma GCC unroll 6
    for (int p = 0; p < kPairs; ++p)
      add_products(sum[p][k % 2], _mm512_set1_epi64(load_pair(q + size_t(p) * 128 + pair_place(k))), weights);
  }
  const __m512i order = _mm512_loadu_si512(kTokenByToken);
#pragma GCC unroll 3
  for (int p = 0; p < kPairs; p += 2) {
    const __m512i low = index_of(_mm512_add_epi32(sum[p][0], sum[p][1]), args);
    const __m512i high = index_of(_mm512_add_epi32(sum[p + 1][0], sum[p + 1][1]), args);
    _mm512_storeu_si512(u + 16 * p, look_up(_mm512_permutex2var_epi16(low, order, high), table));
  }
}

// kT tokens and kG groups of 16 outputs from output j on. Meanwhile `next` is asked for, a line at every quad; none if null.
template <int kT, int kG>
RUYICAM_VNNI void many_outputs(const ProjectArgs& args, const uint8_t* q, const Table& table, int j, const char* next,
                               int16_t* u) {
  const size_t chunked = chunked_in(args.in_dim), step = 4 * size_t(args.padded_out);
  __m512i sum[kT][kG];
#pragma GCC unroll 6
  for (int t = 0; t < kT; ++t)
#pragma GCC unroll 2
    for (int g = 0; g < kG; ++g) sum[t][g] = _mm512_loadu_si512(args.shifted_bias + j + 16 * g);
  const int8_t* w = args.chunked + 4 * size_t(j);
  for (size_t k = 0; k < chunked; k += 4, w += step) {
    if (next) _mm_prefetch(next + 16 * k, _MM_HINT_T1);
    __m512i weights[kG];
#pragma GCC unroll 2
    for (int g = 0; g < kG; ++g) weights[g] = _mm512_loadu_si512(w + 64 * g);
#pragma GCC unroll 6
    for (int t = 0; t < kT; ++t) {
      const __m512i four = _mm512_set1_epi32(load_quad(q + size_t(t) * chunked + k));
#pragma GCC unroll 2
      for (int g = 0; g < kG; ++g) add_products(sum[t][g], four, weights[g]);
    }
  }
  const int left = args.out_dim - j;
  const __mmask32 keep = left >= 16 * kG ? __mmask32((uint64_t(1) << (16 * kG)) - 1) : __mmask32((1u << left) - 1);
#pragma GCC unroll 6
  for (int t = 0; t < kT; ++t) {
    const __m256i low = _mm512_cvtepi32_epi16(index_of(sum[t][0], args));
    const __m256i high = kG > 1 ? _mm512_cvtepi32_epi16(index_of(sum[t][kG - 1], args)) : low;
    _mm512_mask_storeu_epi16(u + t * args.out_dim + j, keep, look_up(join(low, high), table));
  }
}

// next: the tokens after these, so many bytes of them.
template <int kT>
RUYICAM_VNNI void all_outputs(const ProjectArgs& args, const uint8_t* q, const Table& table, const char* next, size_t bytes,
                              int16_t* u) {
  const size_t lines = 16 * chunked_in(args.in_dim);
  size_t asked = 0;
  const auto ahead = [&] {
    const char* from = asked < bytes ? next + asked : nullptr;
    asked += lines;
    return from;
  };
  int j = 0;
  for (; args.padded_out - j >= 16 * kGroups; j += 16 * kGroups) many_outputs<kT, kGroups>(args, q, table, j, ahead(), u);
  for (; j < args.out_dim; j += 16) many_outputs<kT, 1>(args, q, table, j, ahead(), u);
}

}  // namespace

bool runs_here() {
  static const bool yes = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512vnni");
  return yes;
}

bool can(const ProjectArgs& args) { return args.narrow->fits; }

RUYICAM_VNNI void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u) {
  auto* q = static_cast<uint8_t*>(args.scratch);
  const bool multiply = exact_inverse(args.scale) != 0;
  const auto quantize = multiply ? quantize_rows<true> : quantize_rows<false>;
  const auto pairs = multiply ? quantize_pairs<true> : quantize_pairs<false>;
  const Table table = load_table(args);
  const bool few = args.out_dim <= 8, eight = args.out_dim == 8 && args.in_dim <= 64;
  const int most = few ? kTokens : kWideTokens;
  for (int t = 0; t < args.tokens;) {
    const int left = args.tokens - t;
    // A token alone waits for its own sums about as long as four do: the last few go with some of those before, 8 as 4 and 4.
    const bool again = left < 4 && left > (few ? 0 : 1) && args.tokens >= 4;
    if (again) t = args.tokens - 4;
    const int rows = left >= most && left != 8 ? most : (again || left >= 4 ? 4 : 1);
    int16_t* to = u + t * args.out_dim;
    const bool paired = eight && rows > 1;
    (paired ? pairs : quantize)(args, tokens + t * row_stride, row_stride, rows, q);
    if (paired)
      (rows == kTokens ? eight_outputs<kTokens> : eight_outputs<4>)(args, q, table, to);
    else if (few && args.in_dim <= 64)
      (rows == kTokens ? few_outputs<kTokens, 64> : (rows == 4 ? few_outputs<4, 64> : few_outputs<1, 64>))(args, q, table, to);
    else if (few)
      (rows == kTokens ? few_outputs<kTokens, 0> : (rows == 4 ? few_outputs<4, 0> : few_outputs<1, 0>))(args, q, table, to);
    else
      (rows == kWideTokens ? all_outputs<kWideTokens> : (rows == 4 ? all_outputs<4> : all_outputs<1>))(
          args, q, table, reinterpret_cast<const char*>(tokens + (t + rows) * row_stride),
          size_t(rows * row_stride) * sizeof(float), to);
    t += rows;
  }
}

RUYICAM_VNNI void clip_l2(int16_t* u, size_t n, int32_t clip) {
  const __m512i lower = _mm512_set1_epi64(0xffffffff);
  __m512i total = _mm512_setzero_si512();
  for (size_t i = 0; i < n; i += 32) {
    const __mmask32 keep = n - i >= 32 ? ~__mmask32(0) : (__mmask32(1) << (n - i)) - 1;
    const __m512i x = _mm512_maskz_loadu_epi16(keep, u + i);
    // Up to 2^31, so read as unsigned.
    const __m512i squares = _mm512_madd_epi16(x, x);
    total = _mm512_add_epi64(total, _mm512_add_epi64(_mm512_and_si512(squares, lower), _mm512_srli_epi64(squares, 32)));
  }
  const auto sum = uint64_t(_mm512_reduce_add_epi64(total));
  if (sum <= uint64_t(clip) * uint64_t(clip)) return;
  const __m512i factor = _mm512_set1_epi16(int16_t(clip_factor(sum, clip)));
  for (size_t i = 0; i < n; i += 32) {
    const __mmask32 keep = n - i >= 32 ? ~__mmask32(0) : (__mmask32(1) << (n - i)) - 1;
    const __m512i x = _mm512_maskz_loadu_epi16(keep, u + i);
    const __m512i size = _mm512_mulhi_epu16(_mm512_abs_epi16(x), factor);
    _mm512_mask_storeu_epi16(u + i, keep, _mm512_mask_sub_epi16(size, _mm512_movepi16_mask(x), _mm512_setzero_si512(), size));
  }
}

}  // namespace ruyicam::kernels::vnni

#else

namespace ruyicam::kernels::vnni {
bool runs_here() { return false; }
bool can(const ProjectArgs&) { return false; }
void project(const ProjectArgs&, const float*, ptrdiff_t, int16_t*) {}
void clip_l2(int16_t*, size_t, int32_t) {}
}  // namespace ruyicam::kernels::vnni
#endif
