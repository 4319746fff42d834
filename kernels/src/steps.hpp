// The hot steps of the mapping and the preprocessing, once per backend: portable (plain C++) and simd
// (Highway). The portable ones are the truth that the others are tested and timed against.
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ruyicam/kernels/mapping.hpp"
#include "ruyicam/kernels/preprocess.hpp"

namespace ruyicam::kernels {

// Outputs are padded to whole groups of this many, which no vector of 32-bit lanes exceeds.
constexpr int kOutputGroup = 16;

// The index of a table of at most 256 entries in 32 bits: sums beyond `low` and `high` give the first and the last entry
// anyway, and between them the product does not overflow.
struct NarrowIndex {
  bool fits = false;
  int32_t low = 0, high = 0, round = 0;
  int16_t table[256] = {};  // entry i is that of index int8_t(i); beyond the table its first and last entry again
};
NarrowIndex narrow_index(const MappingParams& p);

struct ProjectArgs {
  const int8_t* weight;  // [out_dim, in_dim]
  const int32_t* bias;
  const int16_t* lut;
  int tokens, in_dim, out_dim;
  int half_lut;
  int32_t multiplier;
  int64_t round;
  int shift;
  float scale;
  // The same constants as SIMD wants them: weights [in_dim / 4, padded_out, 4], zero where padded; bias, and bias
  // less 128 times the row's sum (for unsigned q + 128), [padded_out]; the table in 32 bits.
  const int8_t* packed;
  const int32_t* padded_bias;
  const int32_t* shifted_bias;
  const int32_t* wide_lut;
  int padded_out;
  const NarrowIndex* narrow;
  // As VNNI wants them: [chunks of 64 inputs * 16, padded_out, 4], quads in the order of vnni::quad_of.
  const int8_t* chunked;
  void* scratch;  // project_scratch bytes
};

inline size_t padded_in(int in_dim) { return (size_t(in_dim) + 3) / 4 * 4; }
inline size_t chunked_in(int in_dim) { return (size_t(in_dim) + 63) / 64 * 64; }
inline size_t project_scratch(int tokens, int in_dim) { return size_t(tokens) * chunked_in(in_dim) * sizeof(int16_t); }

// floor(x / d) for all x up to `most`, by a multiplication where 64 bits hold it (Granlund and Montgomery, 1994, theorem 4.2).
class Divider {
 public:
  Divider(uint64_t d, uint64_t most) : d_(d) {
    if (most >= uint64_t(1) << 31) return;
    shift_ = 31 + int(std::bit_width(d - 1));
    factor_ = (uint64_t(1) << shift_) / d + 1;
  }
  uint64_t operator()(uint64_t x) const { return factor_ != 0 ? (x * factor_) >> shift_ : x / d_; }
  bool multiplies() const { return factor_ != 0 && factor_ <= 0xffffffff; }
  uint64_t factor() const { return factor_; }
  int shift() const { return shift_; }

 private:
  uint64_t d_, factor_ = 0;
  int shift_ = 0;
};

// Rows of the grid that SIMD makes at once, and by how much sums of groups are padded.
constexpr int kRowsAtOnce = 4;
constexpr size_t kGroupPadding = 64;

// The area average of a luma plane on the grid, in sixteenths of a grey level; see preprocess.hpp.
struct AverageArgs {
  const uint8_t* luma;
  ptrdiff_t stride;
  int width;
  const Line& columns;
  const Line& rows;
  const Groups& groups;  // of the columns
  uint32_t* sums;    // average_scratch numbers
  int32_t* current;  // [cells of rows, cells of columns]
  uint64_t area() const { return uint64_t(columns.cell) * rows.cell; }
  // Of sums of pixels in sixteenths, rounded half up.
  Divider divider() const { return Divider(area(), 16 * 255 * area() + area() / 2); }
};

// Enough for sums of every column in four rows, or for both sums of every group, padded, of every column, and the cells.
inline size_t average_scratch(int width, int cells) {
  const size_t columns = size_t(width), groups = columns / 4 + kGroupPadding;
  return std::max(kRowsAtOnce * columns, 2 * groups + columns + size_t(cells) + 16);
}

// A span of rows: those that weigh a whole pixel, and the first and the last where they weigh less.
struct RowParts {
  const uint8_t* whole;
  int count = 0;
  const uint8_t* part[2] = {};
  uint32_t weight[2] = {};
  int parts = 0;

  RowParts(const AverageArgs& args, const Line::Span& span)
      : whole(args.luma + span.first * args.stride), count(span.count) {
    if (span.first_weight != args.rows.pixel) {
      part[parts] = whole, weight[parts++] = span.first_weight;
      whole += args.stride, --count;
    }
    if (span.count > 1 && span.last_weight != args.rows.pixel)
      part[parts] = whole + --count * args.stride, weight[parts++] = span.last_weight;
  }
};

// Whether cells can be made of groups in 32 bits.
inline bool can_gather(const AverageArgs& args) { return args.groups.fits(255) && 255 * args.area() < uint64_t(1) << 32; }

// Left and right sums, over a span of rows, of the groups from column x on, which begins one.
inline void add_groups_from(const AverageArgs& args, const Line::Span& span, int x, uint32_t* left, uint32_t* right) {
  for (int g = x / 4; g < args.groups.count; ++g) left[g] = right[g] = 0;
  for (; x < args.width; ++x) {
    uint32_t sum = 0;
    for (int r = 0; r < span.count; ++r)
      sum += args.rows.weight(span, r) * args.luma[(span.first + r) * args.stride + x];
    left[x / 4] += args.groups.left[size_t(x)] * sum;
    right[x / 4] += args.groups.right[size_t(x)] * sum;
  }
}

// One pass of the temporal part over all cells of the grid; see preprocess.hpp.
struct TemporalArgs {
  const int32_t* current;
  const int32_t* previous;
  int32_t* background;
  int8_t* out;  // three planes of `cells`
  size_t cells;
  int floor, shift;
};

namespace portable {
void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u);
void clip_l2(int16_t* u, size_t n, int32_t clip);
void noise_words(const uint8_t* key, uint64_t release, uint64_t* words, size_t count);
void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, int bits,
               int16_t* z);
void average(const AverageArgs& args);
void temporal(const TemporalArgs& args);
void temporal_from(const TemporalArgs& args, size_t first);
}  // namespace portable

namespace simd {
void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u);
void clip_l2(int16_t* u, size_t n, int32_t clip);
void noise_words(const uint8_t* key, uint64_t release, uint64_t* words, size_t count);
// mirrored: is_mirrored(cdf), so that half of the table tells.
void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, bool mirrored, int bits,
               int16_t* z);
void average(const AverageArgs& args);
void temporal(const TemporalArgs& args);
}  // namespace simd

// Twins by hand for instructions that Highway does not have; `runs_here` says whether this processor has them.
namespace vnni {
// Which four neighbours of 64 inputs stand at place p of 16, after two rounds of packing within 128-bit lanes.
constexpr size_t quad_of(size_t p) { return 4 * (p % 4) + p / 4; }
bool runs_here();
bool can(const ProjectArgs& args);
void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u);
void clip_l2(int16_t* u, size_t n, int32_t clip);
bool can(const AverageArgs& args);
void average(const AverageArgs& args);
void temporal(const TemporalArgs& args);
}  // namespace vnni

namespace pairs {
bool runs_here();
bool can(const ProjectArgs& args);
void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u);
bool can(const AverageArgs& args);
void average(const AverageArgs& args);
}  // namespace pairs

namespace dotprod {
bool runs_here();
void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u);
bool can(const AverageArgs& args);
void average(const AverageArgs& args);
}  // namespace dotprod

namespace i8mm {
bool runs_here();
void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u);
}  // namespace i8mm

// Which twins by hand the target in use takes; those of i8mm come on top of those of dotprod. See dispatch.hpp.
enum class Extension { kNone, kVnni, kPairs, kDotprod, kI8mm };
Extension extension();

// Zeros that the compiler does not leave out.
template <class T>
void wipe(std::vector<T>& v) {
  volatile T* p = v.data();
  for (size_t i = 0; i < v.size(); ++i) p[i] = 0;
}

// floor(clip * 2^16 / ceil(sqrt(sum))), the factor that clipping shrinks by; sum > clip^2, below 2^53.
int32_t clip_factor(uint64_t sum, int32_t clip);

// rint(h / scale), clamped to +-127; NaN counts as 0.
int8_t quantize(float h, float scale);

// (a * multiplier + round) >> shift, clamped into the table, looked up. |a * multiplier| < 2^62 by the limits.
inline int16_t look_up(const ProjectArgs& args, int32_t a) {
  int64_t i = (int64_t(a) * args.multiplier + args.round) >> args.shift;
  const int64_t low = -int64_t(args.half_lut), high = int64_t(args.half_lut) - 1;
  i = i < low ? low : (i > high ? high : i);
  return args.lut[i - low];
}

}  // namespace ruyicam::kernels
