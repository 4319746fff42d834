// Random but valid mapping constants for the parity tests.
#pragma once
#include <algorithm>
#include <random>

#include "ruyicam/kernels/mapping.hpp"

inline ruyicam::kernels::MappingParams random_params(std::mt19937_64& rng, int tokens, int in_dim, int out_dim, int bits) {
  const auto draw = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); };
  ruyicam::kernels::MappingParams p;
  p.tokens = tokens;
  p.in_dim = in_dim;
  p.out_dim = out_dim;
  p.bits = bits;
  for (int i = 0; i < in_dim * out_dim; ++i) p.weight.push_back(int8_t(draw(-128, 127)));
  const int64_t bias = int64_t(1) << draw(2, 24);
  for (int i = 0; i < out_dim; ++i) p.bias.push_back(int32_t(draw(-bias, bias)));
  // Half of them like real ones; the others of every size, in steps that jump over the table and shifts that flatten it.
  const bool real = rng() % 2;
  const int lut = real ? 256 : 1 << draw(1, 12), most = real ? 120 : 32767;
  for (int i = 0; i < lut; ++i) p.lut.push_back(int16_t(draw(-most, most)));
  for (int64_t i = draw(1, 40); i > 0; --i) {
    const uint64_t entry = std::max<uint64_t>(rng(), 1);
    p.noise_cdf.push_back(entry), p.noise_cdf.push_back(real ? 0 - entry : rng());
  }
  std::sort(p.noise_cdf.begin(), p.noise_cdf.end());
  p.input_scale = real ? 1.0f / 32 : float(draw(1, 1000)) / 300;
  p.multiplier = int32_t(real ? draw(1, 4000) : draw(INT32_MIN, INT32_MAX) >> draw(0, 31));
  p.shift = real ? 16 : int(draw(0, 62));
  p.round = real ? int64_t(1) << 15 : draw(-(int64_t(1) << 40), int64_t(1) << 40);
  p.clip = int32_t(real ? draw(1, 500) : draw(1, 1 << 20));
  return p;
}
