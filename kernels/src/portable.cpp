#include <cmath>

#include "steps.hpp"

namespace ruyicam::kernels::portable {

void quantize(const float* h, size_t n, float scale, int8_t* q) {
  for (size_t i = 0; i < n; ++i) {
    const float x = h[i] / scale;
    const float c = x < -127.0f ? -127.0f : (x > 127.0f ? 127.0f : (x == x ? x : 0.0f));
    q[i] = int8_t(std::nearbyint(c));
  }
}

void project_token(const ProjectArgs& args, const int8_t* q, int16_t* u) {
  for (int j = 0; j < args.out_dim; ++j) {
    const int8_t* w = args.weight + size_t(j) * size_t(args.in_dim);
    int32_t a = args.bias[j];
    for (int i = 0; i < args.in_dim; ++i) a += int32_t(w[i]) * q[i];
    u[j] = look_up(args, a);
  }
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

void accumulate_row(const uint8_t* row, size_t n, uint32_t weight, uint32_t* sums) {
  for (size_t i = 0; i < n; ++i) sums[i] += weight * row[i];
}

}  // namespace ruyicam::kernels::portable
