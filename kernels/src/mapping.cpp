#include "ruyicam/kernels/mapping.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
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
  if (bits == 8) {
    for (size_t i = 0; i < n; ++i) out[i] = uint8_t(z[i]);
    return;
  }
  const uint32_t mask = (uint32_t(1) << bits) - 1;
  uint64_t buffer = 0;
  int held = 0;
  for (size_t i = 0; i < n; ++i) {
    buffer |= uint64_t(uint32_t(z[i]) & mask) << held;
    for (held += bits; held >= 8; held -= 8, buffer >>= 8) *out++ = uint8_t(buffer);
  }
  if (held > 0) *out = uint8_t(buffer);
}

// Whether the table is its own mirror image, as that of symmetric noise is: entries from both ends add up to 2^64.
bool is_mirrored(const std::vector<uint64_t>& cdf) {
  for (size_t i = 0; i < cdf.size() / 2; ++i)
    if (cdf[i] == 0 || cdf[cdf.size() - 1 - i] != 0 - cdf[i]) return false;
  return true;
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

void clip_l2(int16_t* u, size_t n, int32_t clip) { portable::clip_l2(u, n, clip); }

std::vector<int32_t> quads_of(const MappingParams& p, size_t columns) {
  const size_t in = size_t(p.in_dim), out = size_t(p.out_dim);
  std::vector<int32_t> quads((in + 3) / 4 * columns);
  for (size_t j = 0; j < out; ++j)
    for (size_t i = 0; i < in; ++i)
      quads[i / 4 * columns + j] |= int32_t(uint32_t(uint8_t(p.weight[j * in + i])) << (i % 4 * 8));
  return quads;
}

int32_t clip_factor(uint64_t sum, int32_t clip) {
  // The square root of a double is off by less than one here; the comparisons make it exact.
  auto root = uint64_t(std::sqrt(double(sum)));
  while (root * root >= sum) --root;
  while (root * root < sum) ++root;
  return int32_t((uint64_t(clip) << 16) / root);
}

NarrowIndex narrow_index(const MappingParams& p) {
  NarrowIndex n;
  const int64_t half = int64_t(p.lut.size() / 2);
  if (p.lut.size() > 256 || p.multiplier < 1 || p.shift > 24) return n;
  // |a| <= |b| + 127 * 128 * in_dim < 2^25.
  constexpr int64_t kMost = int64_t(1) << 25;
  const auto first_with = [&](int64_t index) {  // the smallest a that gives at least `index`
    const int64_t x = (index << p.shift) - p.round;
    return std::clamp(x / p.multiplier + (x % p.multiplier > 0), -kMost, kMost);
  };
  const int64_t high = first_with(half - 1), low = std::max(first_with(1 - half) - 1, -kMost);
  // The product must not overflow, and where one step of a jumps over entries, it must not leave the table.
  const auto fits = [&](int64_t a) {
    const int64_t x = a * p.multiplier + p.round, index = x >> p.shift;
    return x >= INT32_MIN && x <= INT32_MAX && index >= -half && index < half;
  };
  if (!fits(low) || !fits(high)) return n;
  n.fits = true;
  n.low = int32_t(low), n.high = int32_t(high), n.round = int32_t(p.round);
  for (int64_t i = -128; i < 128; ++i)
    n.table[uint8_t(i)] = p.lut[size_t(std::clamp(i, -half, half - 1) + half)];
  return n;
}

Mapping::Mapping(MappingParams params) : params_(std::move(params)) {
  validate(params_);
  const MappingParams& p = params_;
  n_ = size_t(p.tokens) * size_t(p.out_dim);
  words_.resize(n_);
  noised_.resize(n_);
  clipped_.resize(n_);
  scratch_.resize(project_scratch(p.tokens, p.in_dim));
  padded_out_ = (p.out_dim + kOutputGroup - 1) / kOutputGroup * kOutputGroup;
  packed_ = quads_of(p, size_t(padded_out_));
  padded_bias_.resize(size_t(padded_out_));
  shifted_bias_.resize(size_t(padded_out_));
  for (int j = 0; j < p.out_dim; ++j) {
    int32_t sum = 0;
    for (int i = 0; i < p.in_dim; ++i) sum += p.weight[size_t(j) * size_t(p.in_dim) + size_t(i)];
    padded_bias_[size_t(j)] = p.bias[size_t(j)];
    shifted_bias_[size_t(j)] = p.bias[size_t(j)] - 128 * sum;
  }
  wide_lut_.assign(p.lut.begin(), p.lut.end());
  narrow_ = std::make_unique<NarrowIndex>(narrow_index(p));
  mirrored_ = is_mirrored(p.noise_cdf);
  const size_t chunked = chunked_in(p.in_dim);
  chunked_.resize(chunked * size_t(padded_out_));
  for (size_t place = 0; place < chunked / 4; ++place) {
    const size_t first = place / 16 * 64 + 4 * vnni::quad_of(place % 16);
    for (size_t j = 0; j < size_t(p.out_dim); ++j)
      for (size_t i = first; i < first + 4 && i < size_t(p.in_dim); ++i)
        chunked_[(place * size_t(padded_out_) + j) * 4 + (i - first)] = p.weight[j * size_t(p.in_dim) + i];
  }
}

Mapping::Mapping(Mapping&&) noexcept = default;
Mapping& Mapping::operator=(Mapping&&) noexcept = default;
Mapping::~Mapping() {
  wipe(scratch_), wipe(clipped_), wipe(words_), wipe(noised_);
}

void Mapping::project(const float* tokens, ptrdiff_t row_stride, int16_t* out, Backend backend) {
  project(tokens, 1, 0, row_stride, out, backend);
}

void Mapping::project(const float* tokens, size_t batch, ptrdiff_t frame_stride, ptrdiff_t row_stride, int16_t* out,
                      Backend backend) {
  const MappingParams& p = params_;
  const ProjectArgs args{.weight = p.weight.data(),
                         .bias = p.bias.data(),
                         .lut = p.lut.data(),
                         .tokens = p.tokens,
                         .in_dim = p.in_dim,
                         .out_dim = p.out_dim,
                         .half_lut = int(p.lut.size() / 2),
                         .multiplier = p.multiplier,
                         .round = p.round,
                         .shift = p.shift,
                         .scale = p.input_scale,
                         .packed = reinterpret_cast<const int8_t*>(packed_.data()),
                         .padded_bias = padded_bias_.data(),
                         .shifted_bias = shifted_bias_.data(),
                         .wide_lut = wide_lut_.data(),
                         .padded_out = padded_out_,
                         .narrow = narrow_.get(),
                         .chunked = chunked_.data(),
                         .scratch = scratch_.data()};
  const bool simd = backend == Backend::kSimd;
  for (size_t i = 0; i < batch; ++i, tokens += frame_stride, out += n_) {
    (simd ? simd::project : portable::project)(args, tokens, row_stride, out);
    (simd ? simd::clip_l2 : portable::clip_l2)(out, n_, p.clip);
  }
}

void Mapping::release(const int16_t* clipped, size_t batch, const uint8_t* keys, ptrdiff_t key_stride,
                      const uint64_t* releases, uint8_t* out, Backend backend) {
  for (size_t i = 0; i < batch; ++i, clipped += n_, keys += key_stride, out += packed_bytes())
    release(clipped, keys, releases[i], out, backend);
}

void Mapping::map(const float* tokens, size_t batch, ptrdiff_t frame_stride, ptrdiff_t row_stride, const uint8_t* keys,
                  ptrdiff_t key_stride, const uint64_t* releases, uint8_t* out, Backend backend) {
  for (size_t i = 0; i < batch; ++i, tokens += frame_stride, keys += key_stride, out += packed_bytes()) {
    project(tokens, row_stride, clipped_.data(), backend);
    release(clipped_.data(), keys, releases[i], out, backend);
  }
}

void Mapping::release(const int16_t* clipped, const uint8_t* key, uint64_t release, uint8_t* out, Backend backend) {
  const bool simd = backend == Backend::kSimd;
  (simd ? simd::noise_words : portable::noise_words)(key, release, words_.data(), n_);
  const std::vector<uint64_t>& cdf = params_.noise_cdf;
  if (simd)
    simd::add_noise(clipped, words_.data(), n_, cdf.data(), cdf.size(), mirrored_, params_.bits, noised_.data());
  else
    portable::add_noise(clipped, words_.data(), n_, cdf.data(), cdf.size(), params_.bits, noised_.data());
  pack(noised_.data(), n_, params_.bits, out);
}

}  // namespace ruyicam::kernels
