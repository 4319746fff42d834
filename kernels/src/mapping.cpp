#include "ruyicam/kernels/mapping.hpp"

#include <bit>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "ruyicam/kernels/chacha20.hpp"
#include "steps.hpp"

namespace ruyicam::kernels {
namespace {

void require(bool ok, const std::string& message) {
  if (!ok) throw std::invalid_argument("mapping: " + message);
}

void require_size(size_t got, size_t want, const char* field) {
  require(got == want, std::string(field) + " has " + std::to_string(got) + " entries, expected " + std::to_string(want));
}

void validate(const MappingParams& p) {
  require(p.tokens >= 1 && p.tokens <= 4096, "tokens must be 1 to 4096");
  require(p.in_dim >= 1 && p.in_dim <= 1024, "in_dim must be 1 to 1024");
  require(p.out_dim >= 1 && p.out_dim <= 1024, "out_dim must be 1 to 1024");
  require_size(p.weight.size(), size_t(p.in_dim) * size_t(p.out_dim), "weight");
  require_size(p.bias.size(), size_t(p.out_dim), "bias");
  for (const int32_t b : p.bias) require(b >= -(1 << 24) && b <= (1 << 24), "bias entries must be within +-2^24");
  require(p.lut.size() >= 2 && p.lut.size() <= 65536 && std::has_single_bit(p.lut.size()),
          "lut must have a power of two of entries, 2 to 65536");
  require(!p.noise_cdf.empty() && p.noise_cdf.size() % 2 == 0 && p.noise_cdf.size() <= 16384,
          "noise_cdf must have an even number of entries, 2 to 16384");
  for (size_t i = 1; i < p.noise_cdf.size(); ++i)
    require(p.noise_cdf[i - 1] <= p.noise_cdf[i], "noise_cdf must not fall");
  require(std::isfinite(p.input_scale) && p.input_scale > 0, "input_scale must be finite and above 0");
  require(p.round >= -(int64_t(1) << 62) && p.round <= (int64_t(1) << 62), "round must be within +-2^62");
  require(p.shift >= 0 && p.shift <= 62, "shift must be 0 to 62");
  require(p.clip >= 1 && p.clip <= (1 << 20), "clip must be 1 to 2^20");
  require(p.bits >= 2 && p.bits <= 16, "bits must be 2 to 16");
}

void pack(const int16_t* z, size_t n, int bits, uint8_t* out) {
  const uint32_t mask = (uint32_t(1) << bits) - 1;
  uint64_t buffer = 0;
  int held = 0;
  for (size_t i = 0; i < n; ++i) {
    buffer |= uint64_t(uint32_t(z[i]) & mask) << held;
    for (held += bits; held >= 8; held -= 8, buffer >>= 8) *out++ = uint8_t(buffer);
  }
  if (held > 0) *out = uint8_t(buffer);
}

}  // namespace

uint64_t isqrt(uint64_t x) {
  uint64_t r = 0;
  for (uint64_t bit = uint64_t(1) << 31; bit != 0; bit >>= 1) {
    const uint64_t t = r | bit;
    if (t * t <= x) r = t;
  }
  return r;
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

Mapping::Mapping(MappingParams params) : params_(std::move(params)) {
  validate(params_);
  n_ = size_t(params_.tokens) * size_t(params_.out_dim);
  q_.resize(size_t(params_.in_dim));
  words_.resize(n_);
  noised_.resize(n_);
}

void Mapping::project(const float* tokens, ptrdiff_t row_stride, int16_t* out, Backend backend) {
  const bool simd = backend == Backend::kSimd;
  const MappingParams& p = params_;
  const ProjectArgs args{p.weight.data(), p.bias.data(), p.lut.data(), p.in_dim, p.out_dim, int(p.lut.size() / 2),
                         p.multiplier,    p.round,       p.shift};
  for (int t = 0; t < p.tokens; ++t) {
    const float* row = tokens + t * row_stride;
    (simd ? simd::quantize : portable::quantize)(row, size_t(p.in_dim), p.input_scale, q_.data());
    (simd ? simd::project_token : portable::project_token)(args, q_.data(), out + size_t(t) * size_t(p.out_dim));
  }
  clip_l2(out, n_, p.clip);
}

void Mapping::release(const int16_t* clipped, const uint8_t* key, uint64_t release, uint8_t* out, Backend backend) {
  noise_words(key, release, words_.data(), n_);
  (backend == Backend::kSimd ? simd::add_noise : portable::add_noise)(
      clipped, words_.data(), n_, params_.noise_cdf.data(), params_.noise_cdf.size(), params_.bits, noised_.data());
  pack(noised_.data(), n_, params_.bits, out);
}

}  // namespace ruyicam::kernels
