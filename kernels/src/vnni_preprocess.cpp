// The preprocessing by hand for AVX-512 with VNNI. The area average: every 32-bit lane adds up four neighbouring pixels over the rows of a cell,
// weighted once as part of the cell on the left and once as part of that on the right; lanes make cells once a row of the grid.
#include "steps.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include "vnni.hpp"

namespace ruyicam::kernels::vnni {
namespace {

template <bool kWhole>
RUYICAM_VNNI inline __m512i load(const uint8_t* p, __mmask64 keep) {
  return kWhole ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(keep, p);
}

// Left and right sums of sixteen groups from column x on, over a span of rows; not kWhole: of the first `some` columns.
template <bool kWhole>
RUYICAM_VNNI inline void sum_sixteen(const AverageArgs& args, const RowParts& rows, int x, uint32_t* left, uint32_t* right,
                                     int some = 64) {
  const __mmask64 keep = kWhole ? ~__mmask64(0) : (__mmask64(1) << some) - 1;
  const __m512i wl = load<kWhole>(args.groups.left.data() + x, keep), wr = load<kWhole>(args.groups.right.data() + x, keep);
  const __m512i pixel = _mm512_set1_epi32(int32_t(args.rows.pixel));
  __m512i l = _mm512_setzero_si512(), r = l;
  const uint8_t* row = rows.whole + x;
  const ptrdiff_t stride = args.stride;
  for (int i = rows.count; i > 0; --i, row += stride) {
    const __m512i pixels = load<kWhole>(row, keep);
    add_products(l, pixels, wl);
    add_products(r, pixels, wr);
  }
  if (args.rows.pixel > 1) {
    l = _mm512_mullo_epi32(l, pixel);
    r = _mm512_mullo_epi32(r, pixel);
  }
  for (int i = 0; i < rows.parts; ++i) {
    const __m512i pixels = load<kWhole>(rows.part[i] + x, keep), weight = _mm512_set1_epi32(int32_t(rows.weight[i]));
    if (rows.weight[i] == 1) {
      add_products(l, pixels, wl);
      add_products(r, pixels, wr);
      continue;
    }
    __m512i pl = _mm512_setzero_si512(), pr = pl;
    add_products(pl, pixels, wl);
    add_products(pr, pixels, wr);
    l = _mm512_add_epi32(l, _mm512_mullo_epi32(pl, weight));
    r = _mm512_add_epi32(r, _mm512_mullo_epi32(pr, weight));
  }
  _mm512_storeu_si512(left + x / 4, l);
  _mm512_storeu_si512(right + x / 4, r);
}

// Asks for the frame's next lines bit by bit in the order of memory, which reading several rows at once hides from the
// processor. Into the second cache: the first has too few misses in flight to keep memory busy.
class Ahead {
 public:
  // `bytes` from `from` on, in about `steps` steps.
  Ahead(const uint8_t* from, ptrdiff_t bytes, ptrdiff_t steps) : next_(from), lines_((bytes + 64 * steps - 1) / (64 * steps)) {}
  void step() {
    for (ptrdiff_t i = 0; i < lines_; ++i, next_ += 64) __builtin_prefetch(next_, 0, 2);
  }

 private:
  const uint8_t* next_;
  ptrdiff_t lines_;
};

// Eight cells from their groups, which are within 32 neighbours.
RUYICAM_VNNI inline __m256i gather_cells(const Groups& g, size_t j, const uint32_t* left, const uint32_t* right) {
  const __mmask8 keep = g.first.size() - j >= 8 ? 0xff : __mmask8((1u << (g.first.size() - j)) - 1);
  const int base = std::max(g.first[j] - 1, 0);
  const __m512i near = _mm512_loadu_si512(left + base), far = _mm512_loadu_si512(left + base + 16);
  const __m256i first = _mm256_sub_epi32(_mm256_maskz_loadu_epi32(keep, g.first.data() + j), _mm256_set1_epi32(base));
  const __m256i length = _mm256_maskz_loadu_epi32(keep, g.length.data() + j);
  const __m256i before = _mm256_sub_epi32(first, _mm256_set1_epi32(1));
  const __mmask8 shared = _mm_test_epi8_mask(_mm_maskz_loadu_epi8(keep, g.shared.data() + j), _mm_set1_epi8(1));
  __m512i sum = _mm512_maskz_permutex2var_epi32(shared, _mm512_loadu_si512(right + base), _mm512_castsi256_si512(before),
                                                _mm512_loadu_si512(right + base + 16));
  int k = 0;
  for (; k < g.shortest; ++k) {
    const __m256i index = _mm256_add_epi32(first, _mm256_set1_epi32(k));
    sum = _mm512_add_epi32(sum, _mm512_permutex2var_epi32(near, _mm512_castsi256_si512(index), far));
  }
  for (; k < g.longest; ++k) {
    const __mmask8 within = _mm256_cmpgt_epi32_mask(length, _mm256_set1_epi32(k));
    const __m256i index = _mm256_add_epi32(first, _mm256_set1_epi32(k));
    sum = _mm512_add_epi32(sum, _mm512_maskz_permutex2var_epi32(within, near, _mm512_castsi256_si512(index), far));
  }
  return _mm512_castsi512_si256(sum);
}

// Whether any eight neighbouring cells are within 32 groups.
bool gathers(const Groups& g) {
  for (size_t j = 0; j < g.first.size(); j += 8) {
    const size_t last = std::min(j + 7, g.first.size() - 1);
    if (g.first[last] + g.length[last] - std::max(g.first[j] - 1, 0) > 32) return false;
  }
  return true;
}

RUYICAM_VNNI inline __m256i divide(__m256i sum, const Divider& over, uint64_t half) {
  const __m512i x = _mm512_add_epi64(_mm512_slli_epi64(_mm512_cvtepu32_epi64(sum), 4), _mm512_set1_epi64(int64_t(half)));
  const __m512i product = _mm512_mul_epu32(x, _mm512_set1_epi64(int64_t(over.factor())));
  return _mm512_cvtepi64_epi32(_mm512_srl_epi64(product, _mm_cvtsi32_si128(over.shift())));
}

}  // namespace

bool can(const AverageArgs& args) {
  return args.groups.fits(127) && args.divider().multiplies() && gathers(args.groups);
}

RUYICAM_VNNI void average(const AverageArgs& args) {
  const Divider over = args.divider();
  const std::vector<Line::Span>& spans = args.rows.spans;
  const size_t cells = args.columns.spans.size();
  uint32_t *left = args.sums, *right = left + args.groups.count + kGroupPadding;
  int32_t* cell = args.current;
  // Columns before the first whole line of the cache, if those of all rows begin alike: loads that cross lines take twice.
  const int before = int(-reinterpret_cast<uintptr_t>(args.luma) % 64);
  const int head = args.stride % 64 == 0 && before % 4 == 0 && before < args.width ? before : 0;
  const ptrdiff_t steps = args.width / 64 + ptrdiff_t(cells + 31) / 32;
  // What lies between the rows of a wide stride is not worth fetching.
  const bool dense = args.stride >= args.width && args.stride < 2 * args.width;
  for (size_t y = 0; y < spans.size(); ++y, cell += cells) {
    const ptrdiff_t bytes = dense && y + 1 < spans.size() ? spans[y + 1].count * args.stride : 0;
    Ahead ahead(args.luma + (spans[y].first + spans[y].count) * args.stride, bytes, steps);
    const RowParts rows(args, spans[y]);
    int x = 0;
    if (head > 0) sum_sixteen<false>(args, rows, 0, left, right, x = head);
    for (; x + 64 <= args.width; x += 64) {
      ahead.step();
      sum_sixteen<true>(args, rows, x, left, right);
    }
    if (x < args.width) sum_sixteen<false>(args, rows, x, left, right, args.width - x);
    for (size_t j = 0; j < cells; j += 8) {
      if (j % 32 == 0) ahead.step();
      const __mmask8 keep = cells - j >= 8 ? 0xff : __mmask8((1u << (cells - j)) - 1);
      const __m256i sums = gather_cells(args.groups, j, left, right);
      _mm256_mask_storeu_epi32(cell + j, keep, divide(sums, over, args.area() / 2));
    }
  }
}

// 32 cells at a time: all but the background fits 16 bits.
RUYICAM_VNNI void temporal(const TemporalArgs& args) {
  const __m512i zero = _mm512_setzero_si512(), full = _mm512_set1_epi16(128), grey = _mm512_set1_epi16(2048);
  const __m512i least = _mm512_set1_epi16(-127), four = _mm512_set1_epi16(4), floor = _mm512_set1_epi16(int16_t(args.floor));
  // Packing interleaves its two halves by lanes of 128 bits; this is the order before.
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  const __m128i shift = _mm_cvtsi32_si128(args.shift);
  size_t i = 0;
  for (; i + 32 <= args.cells; i += 32) {
    const __m512i a0 = _mm512_loadu_si512(args.current + i), a1 = _mm512_loadu_si512(args.current + i + 16);
    const __m512i b0 = _mm512_loadu_si512(args.background + i), b1 = _mm512_loadu_si512(args.background + i + 16);
    const __m512i before = _mm512_packs_epi32(_mm512_loadu_si512(args.previous + i), _mm512_loadu_si512(args.previous + i + 16));
    const __m512i a = _mm512_packs_epi32(a0, a1);
    const __m512i from = _mm512_sub_epi16(a, _mm512_packs_epi32(_mm512_srai_epi32(b0, 8), _mm512_srai_epi32(b1, 8)));
    const __m512i w = _mm512_min_epi16(_mm512_max_epi16(_mm512_sub_epi16(_mm512_abs_epi16(from), floor), zero), full);
    const __m512i luma = _mm512_srai_epi16(_mm512_mullo_epi16(_mm512_srai_epi16(_mm512_sub_epi16(a, grey), 4), w), 7);
    const __m512i near = _mm512_srai_epi16(_mm512_add_epi16(_mm512_sub_epi16(a, before), four), 3);
    const __m512i far = _mm512_srai_epi16(_mm512_add_epi16(from, four), 3);
    const __m512i out[3] = {luma, _mm512_max_epi16(near, least), _mm512_max_epi16(far, least)};
    for (size_t k = 0; k < 3; ++k)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(args.out + k * args.cells + i),
                          _mm512_cvtsepi16_epi8(_mm512_permutexvar_epi64(order, out[k])));
    const __m512i c0 = _mm512_sra_epi32(_mm512_sub_epi32(_mm512_slli_epi32(a0, 8), b0), shift);
    const __m512i c1 = _mm512_sra_epi32(_mm512_sub_epi32(_mm512_slli_epi32(a1, 8), b1), shift);
    _mm512_storeu_si512(args.background + i, _mm512_add_epi32(b0, c0));
    _mm512_storeu_si512(args.background + i + 16, _mm512_add_epi32(b1, c1));
  }
  if (i < args.cells) portable::temporal_from(args, i);
}

}  // namespace ruyicam::kernels::vnni

#else

namespace ruyicam::kernels::vnni {
bool can(const AverageArgs&) { return false; }
void average(const AverageArgs&) {}
void temporal(const TemporalArgs&) {}
}  // namespace ruyicam::kernels::vnni
#endif
