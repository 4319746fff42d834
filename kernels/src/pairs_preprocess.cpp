// The area average by hand for AVX2: pairs of rows are interleaved and weighed by one product, so that
// columns are summed in 16 bits, four rows at a time in the order of memory; their sums are weighed once as part of the cell on
// the left and once as part of that on the right.
#include "steps.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include "pairs.hpp"

namespace ruyicam::kernels::pairs {
namespace {

// What eight cells cost, in steps of 32 columns of four rows.
constexpr int kCellSteps = 2;

// Asks for the frame's lines in the order of memory, which reading four rows at once hides from the processor, evenly over all
// of the work, a few rows ahead of it.
class Ahead {
 public:
  // `steps` of all work on the frame.
  Ahead(const AverageArgs& args, int height, ptrdiff_t steps) {
    // What lies between the rows of a wide stride is not worth fetching.
    if (args.stride < args.width || args.stride >= 2 * args.width || height <= kRows) return;
    next_ = until_ = args.luma + kRows * args.stride;
    bytes_ = (height - kRows) * args.stride / steps + 1;
  }
  void step(int times) {
    for (until_ += times * bytes_; next_ < until_; next_ += 64) __builtin_prefetch(next_, 0, 2);
  }

 private:
  static constexpr ptrdiff_t kRows = 6;
  const uint8_t *next_ = nullptr, *until_ = nullptr;
  ptrdiff_t bytes_ = 0;
};

// Up to four rows and what their pixels weigh; two by two, the second weighs the high byte.
struct Rows {
  const uint8_t* row[4];
  __m256i weight[2];
};

// Rows r to r + 4 of a span; those beyond it weigh nothing.
RUYICAM_PAIRS inline Rows rows_of(const AverageArgs& args, const Line::Span& span, int r) {
  Rows rows;
  uint32_t weight[4];
  for (int i = 0; i < 4; ++i) {
    const bool within = r + i < span.count;
    rows.row[i] = args.luma + (span.first + (within ? r + i : r)) * args.stride;
    weight[i] = within ? args.rows.weight(span, r + i) : 0;
  }
  for (int i = 0; i < 2; ++i) rows.weight[i] = _mm256_set1_epi16(int16_t(weight[2 * i] | weight[2 * i + 1] << 8));
  return rows;
}

// Sums of 32 columns: 0 to 7 and 16 to 23, and the others. kPairs of rows more; kEnds: into sums of groups of four, what each
// leaves to the cell on its right (`right`, and in `last` until the next call) with the next group's.
template <int kPairs, bool kBegins, bool kEnds>
RUYICAM_PAIRS inline void add_columns(const AverageArgs& args, const Rows& rows, int x, int16_t* sums, uint32_t* groups,
                                      uint32_t* right, __m256i& last) {
  __m256i low = kBegins ? _mm256_setzero_si256() : load(sums + x), high = kBegins ? low : load(sums + x + 16);
#pragma GCC unroll 2
  for (int i = 0; i < kPairs; ++i) {
    const __m256i a = load(rows.row[2 * i] + x), b = load(rows.row[2 * i + 1] + x);
    low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), rows.weight[i]));
    high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), rows.weight[i]));
  }
  if (!kEnds) {
    store(sums + x, low);
    store(sums + x + 16, high);
    return;
  }
  const __m256i zero = _mm256_setzero_si256();
  const __m256i wl = load(args.groups.left.data() + x), wr = load(args.groups.right.data() + x);
  const __m256i l = _mm256_hadd_epi32(_mm256_madd_epi16(low, _mm256_unpacklo_epi8(wl, zero)),
                                      _mm256_madd_epi16(high, _mm256_unpackhi_epi8(wl, zero)));
  const __m256i r = _mm256_hadd_epi32(_mm256_madd_epi16(low, _mm256_unpacklo_epi8(wr, zero)),
                                      _mm256_madd_epi16(high, _mm256_unpackhi_epi8(wr, zero)));
  const __m256i before = _mm256_alignr_epi8(r, _mm256_permute2x128_si256(last, r, 0x21), 12);
  store(groups + x / 4, _mm256_add_epi32(l, before));
  store(right + x / 4, r);
  last = r;
}

template <int kPairs, bool kBegins, bool kEnds>
RUYICAM_PAIRS void add_rows(const AverageArgs& args, const Rows& rows, Ahead& ahead, int16_t* sums, uint32_t* groups,
                            uint32_t* right) {
  __m256i last = _mm256_setzero_si256();
  for (int x = 0; x + 32 <= args.width; x += 32) {
    ahead.step(1);
    add_columns<kPairs, kBegins, kEnds>(args, rows, x, sums, groups, right, last);
  }
}

// Sums of all groups over a span of rows, each with what the one before leaves to the cell on its right.
RUYICAM_PAIRS void sum_groups(const AverageArgs& args, const Line::Span& span, Ahead& ahead, int16_t* sums, uint32_t* groups,
                              uint32_t* right) {
  int r = 0;
  for (; span.count - r > 4; r += 4)
    (r == 0 ? add_rows<2, true, false> : add_rows<2, false, false>)(args, rows_of(args, span, r), ahead, sums, groups, right);
  const bool one = span.count - r <= 2;
  const auto last = r == 0 ? (one ? add_rows<1, true, true> : add_rows<2, true, true>)
                           : (one ? add_rows<1, false, true> : add_rows<2, false, true>);
  last(args, rows_of(args, span, r), ahead, sums, groups, right);
  const int whole = args.width / 32 * 8;
  add_groups_from(args, span, 4 * whole, groups, right);
  for (int g = std::max(whole, 1); g < args.groups.count; ++g) groups[g] += right[g - 1];
}

// Sums of cells from their groups, of which at least kLeast are theirs. Nothing is skipped, as how many more there are follows
// no pattern that a processor guesses.
template <int kLeast>
RUYICAM_PAIRS void sum_cells(const Groups& g, const uint32_t* groups, Ahead& ahead, int32_t* cell) {
  for (size_t j = 0; j < g.first.size(); ++j) {
    if (j % 8 == 0) ahead.step(kCellSteps);
    const uint32_t* from = groups + g.first[j];
    uint32_t sum = 0;
#pragma GCC unroll 4
    for (int k = 0; k < kLeast; ++k) sum += from[k];
    if (g.longest <= kLeast + 1) {
      sum += from[kLeast] & (0u - uint32_t(g.length[j] > kLeast));
    } else {
      for (int k = kLeast; k < g.length[j]; ++k) sum += from[k];
    }
    cell[j] = int32_t(sum);
  }
}

// Sums of pixels to sixteenths of their average.
RUYICAM_PAIRS void divide(int32_t* cell, size_t cells, const Divider& over, uint32_t half) {
  const __m256i factor = _mm256_set1_epi64x(int64_t(over.factor())), add = _mm256_set1_epi32(int32_t(half));
  const __m128i shift = _mm_cvtsi32_si128(over.shift());
  size_t j = 0;
  for (; j + 8 <= cells; j += 8) {
    const __m256i x = _mm256_add_epi32(_mm256_slli_epi32(load(cell + j), 4), add);
    const __m256i even = _mm256_srl_epi64(_mm256_mul_epu32(x, factor), shift);
    const __m256i odd = _mm256_srl_epi64(_mm256_mul_epu32(_mm256_srli_epi64(x, 32), factor), shift);
    store(cell + j, _mm256_or_si256(even, _mm256_slli_epi64(odd, 32)));
  }
  for (; j < cells; ++j) cell[j] = int32_t(over(16 * uint64_t(uint32_t(cell[j])) + half));
}

}  // namespace

// Sums of columns are kept in 16 bits, and weights in seven; a group's right-hand cell is that of the next group.
bool can(const AverageArgs& args) {
  return args.rows.cell <= 127 && can_gather(args) && args.groups.shortest > 0 && args.divider().multiplies();
}

RUYICAM_PAIRS void average(const AverageArgs& args) {
  const Divider over = args.divider();
  uint32_t *groups = args.sums, *right = groups + args.groups.count + kGroupPadding;
  auto* sums = reinterpret_cast<int16_t*>(right + args.groups.count + kGroupPadding);
  const int least = args.groups.shortest;
  const auto sum = least == 1 ? sum_cells<1> : (least == 2 ? sum_cells<2> : (least == 3 ? sum_cells<3> : sum_cells<4>));
  const size_t cells = args.columns.spans.size();
  const auto& spans = args.rows.spans;
  ptrdiff_t steps = ptrdiff_t(spans.size() * ((cells + 7) / 8)) * kCellSteps;
  for (const Line::Span& span : spans) steps += (span.count + 3) / 4 * (args.width / 32);
  Ahead ahead(args, spans.back().first + spans.back().count, steps);
  int32_t* cell = args.current;
  for (const Line::Span& span : spans) {
    sum_groups(args, span, ahead, sums, groups, right);
    sum(args.groups, groups, ahead, cell);
    divide(cell, cells, over, uint32_t(args.area() / 2));
    cell += cells;
  }
}

}  // namespace ruyicam::kernels::pairs

#else

namespace ruyicam::kernels::pairs {
bool can(const AverageArgs&) { return false; }
void average(const AverageArgs&) {}
}  // namespace ruyicam::kernels::pairs
#endif
