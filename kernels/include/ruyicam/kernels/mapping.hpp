// The feature mapping: tokens -> bounded, noised, packed features. Integer arithmetic after the first
// rounding, so that every backend gives the same bits. For one frame, with n = tokens * out_dim:
//   q = clamp(rint(H / input_scale), -127, 127)                 (NaN counts as 0)
//   a = W q + b
//   u = lut[clamp((a * multiplier + round) >> shift, -L/2, L/2 - 1) + L/2]      L = lut_size
//   u = trunc(u * floor(clip * 2^16 / ceil(sqrt(sum u^2))) / 2^16)  if sum u^2 > clip^2
//   g = -m + #{k : word >= noise_cdf[k]}                         2m = noise_size; word from ChaCha20
//   z = clamp(u + g, -2^(bits-1), 2^(bits-1) - 1), packed two's complement, least significant bit first
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ruyicam/kernels/dispatch.hpp"

namespace ruyicam::kernels {

struct NarrowIndex;

// 1 / scale where that is a power of two, so that a multiplication is the division to the last bit; else 0.
inline float exact_inverse(float scale) {
  int exponent = 0;
  return std::frexp(scale, &exponent) == 0.5f && exponent > -100 && exponent < 100 ? 1 / scale : 0;
}

struct MappingParams {
  int tokens = 0;    // T, tokens per frame
  int in_dim = 0;    // D, at most 1024 so that the int32 sum cannot overflow
  int out_dim = 0;   // d
  std::vector<int8_t> weight;       // [d, D] row-major
  std::vector<int32_t> bias;        // [d], |b| <= 2^24
  std::vector<int16_t> lut;         // [L], L a power of two, 2 to 65536
  std::vector<uint64_t> noise_cdf;  // [2m], rising: 2^64 * Phi((k + 1/2) / sigma), k = -m .. m-1
  float input_scale = 0;            // s_h > 0
  int32_t multiplier = 0;           // m
  int64_t round = 0;                // r, |r| <= 2^62
  int shift = 0;                    // s, 0 to 62
  int32_t clip = 0;                 // C, 1 to 2^20
  int bits = 0;                     // 2 to 16
};

class Mapping {
 public:
  // Throws std::invalid_argument with one line that names the field and what would be right.
  explicit Mapping(MappingParams params);

  const MappingParams& params() const { return params_; }
  size_t features() const { return n_; }                                   // n = T * d
  size_t packed_bytes() const { return (n_ * size_t(params_.bits) + 7) / 8; }

  Mapping(Mapping&&) noexcept;
  Mapping& operator=(Mapping&&) noexcept;
  ~Mapping();  // wipes what it held of frames and noise

  // Steps 1 to 4. tokens: T rows of D floats, rows `row_stride` floats apart. out: n int16, clipped.
  // Uses scratch inside the object: one thread at a time per object. Allocates nothing.
  void project(const float* tokens, ptrdiff_t row_stride, int16_t* out, Backend backend);
  // The same for `batch` frames whose first tokens are `frame_stride` floats apart; out: [batch, n].
  void project(const float* tokens, size_t batch, ptrdiff_t frame_stride, ptrdiff_t row_stride, int16_t* out,
               Backend backend);
  // Steps 5 and 6 on clipped features. key: 32 bytes. out: packed_bytes() bytes.
  void release(const int16_t* clipped, const uint8_t* key, uint64_t release, uint8_t* out, Backend backend);
  // The same for `batch` frames, [batch, n]. Frame i is release number releases[i] under the key of 32 bytes at
  // keys + i * key_stride (0: one key for all); a number must never be used twice with one key. out: [batch, packed_bytes()].
  void release(const int16_t* clipped, size_t batch, const uint8_t* keys, ptrdiff_t key_stride, const uint64_t* releases,
               uint8_t* out, Backend backend);
  // All steps for `batch` frames of many cameras, frame by frame.
  void map(const float* tokens, size_t batch, ptrdiff_t frame_stride, ptrdiff_t row_stride, const uint8_t* keys,
           ptrdiff_t key_stride, const uint64_t* releases, uint8_t* out, Backend backend);

 private:
  MappingParams params_;
  size_t n_;
  int padded_out_;
  std::vector<int32_t> packed_;
  std::vector<int8_t> chunked_;
  std::vector<int32_t> padded_bias_, shifted_bias_, wide_lut_;
  std::vector<unsigned char> scratch_;
  std::vector<uint64_t> words_;
  std::vector<int16_t> noised_, clipped_;
  std::unique_ptr<NarrowIndex> narrow_;
  bool mirrored_ = false;  // of noise_cdf
};

// The weights as [ceil(in_dim / 4), columns] words of four neighbouring inputs, the first one lowest, 0 beyond the last input
// and output: what dot products of bytes want, on the GPU and elsewhere. columns: out_dim or more.
std::vector<int32_t> quads_of(const MappingParams& params, size_t columns);
inline std::vector<int32_t> quads_of(const MappingParams& params) { return quads_of(params, size_t(params.out_dim)); }
// Step 4 alone, in place; exact for every int16 input.
void clip_l2(int16_t* u, size_t n, int32_t clip);
// Largest r with r * r <= x.
uint64_t isqrt(uint64_t x);

}  // namespace ruyicam::kernels
