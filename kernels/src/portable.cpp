#include <cmath>

#include "ruyicam/kernels/chacha20.hpp"
#include "ruyicam/kernels/mapping.hpp"
#include "steps.hpp"

namespace ruyicam::kernels {

int8_t quantize(float h, float scale) {
  const float x = h / scale;
  const float c = x < -127.0f ? -127.0f : (x > 127.0f ? 127.0f : (x == x ? x : 0.0f));
  return int8_t(std::nearbyint(c));
}

namespace portable {

void project(const ProjectArgs& args, const float* tokens, ptrdiff_t row_stride, int16_t* u) {
  auto* q = static_cast<int8_t*>(args.scratch);
  for (int t = 0; t < args.tokens; ++t) {
    for (int i = 0; i < args.in_dim; ++i) q[i] = quantize(tokens[t * row_stride + i], args.scale);
    for (int j = 0; j < args.out_dim; ++j) {
      const int8_t* w = args.weight + size_t(j) * size_t(args.in_dim);
      int32_t a = args.bias[j];
      for (int i = 0; i < args.in_dim; ++i) a += int32_t(w[i]) * q[i];
      *u++ = look_up(args, a);
    }
  }
}

void clip_l2(int16_t* u, size_t n, int32_t clip) {
  uint64_t sum = 0;
  for (size_t i = 0; i < n; ++i) sum += uint64_t(int64_t(u[i]) * u[i]);
  if (sum <= uint64_t(clip) * uint64_t(clip)) return;
  uint64_t root = isqrt(sum);
  root += root * root < sum;
  // floor and trunc only shrink: |u'| <= |u| * clip / sqrt(sum), hence sum u'^2 <= clip^2.
  const int64_t factor = int64_t((uint64_t(clip) << 16) / root);
  for (size_t i = 0; i < n; ++i) u[i] = int16_t(int64_t(u[i]) * factor / 65536);
}

void noise_words(const uint8_t* key, uint64_t release, uint64_t* words, size_t count) {
  kernels::noise_words(key, release, words, count);
}

void add_noise(const int16_t* u, const uint64_t* words, size_t n, const uint64_t* cdf, size_t cdf_size, int bits,
               int16_t* z) {
  const int32_t high = (1 << (bits - 1)) - 1, low = -high - 1;
  for (size_t i = 0; i < n; ++i) {
    // The whole table is read for every word, so that the time does not depend on the noise.
    int32_t g = -int32_t(cdf_size / 2);
    for (size_t k = 0; k < cdf_size; ++k) g += int32_t(words[i] >= cdf[k]);
    const int32_t v = u[i] + g;
    z[i] = int16_t(v < low ? low : (v > high ? high : v));
  }
}

void average(const AverageArgs& args) {
  const uint64_t area = args.area();
  int32_t* cell = args.current;
  for (const Line::Span& down : args.rows.spans) {
    for (int x = 0; x < args.width; ++x) args.sums[x] = 0;
    for (int r = 0; r < down.count; ++r) {
      const uint8_t* row = args.luma + (down.first + r) * args.stride;
      const uint32_t w = args.rows.weight(down, r);
      for (int x = 0; x < args.width; ++x) args.sums[x] += w * row[x];
    }
    for (const Line::Span& across : args.columns.spans) {
      uint64_t sum = 0;
      for (int i = 0; i < across.count; ++i) sum += uint64_t(args.columns.weight(across, i)) * args.sums[across.first + i];
      *cell++ = int32_t((16 * sum + area / 2) / area);
    }
  }
}

void temporal_from(const TemporalArgs& args, size_t first) {
  const auto small = [](int32_t difference) {
    const int32_t x = (difference + 4) >> 3;
    return int8_t(x < -127 ? -127 : (x > 127 ? 127 : x));
  };
  for (size_t i = first; i < args.cells; ++i) {
    const int32_t a = args.current[i], from = a - (args.background[i] >> 8);
    const int32_t far = (from < 0 ? -from : from) - args.floor, w = far < 0 ? 0 : (far > 128 ? 128 : far);
    args.out[i] = int8_t((((a - 2048) >> 4) * w) >> 7);
    args.out[args.cells + i] = small(a - args.previous[i]);
    args.out[2 * args.cells + i] = small(from);
    args.background[i] += ((a << 8) - args.background[i]) >> args.shift;
  }
}

void temporal(const TemporalArgs& args) { temporal_from(args, 0); }

}  // namespace portable
}  // namespace ruyicam::kernels
