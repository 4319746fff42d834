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
  for (int i = 0; i < out_dim; ++i) p.bias.push_back(int32_t(draw(-10000, 10000)));
  for (int i = 0; i < 256; ++i) p.lut.push_back(int16_t(draw(-120, 120)));
  for (int i = 0; i < 2 * 37; ++i) p.noise_cdf.push_back(rng());
  std::sort(p.noise_cdf.begin(), p.noise_cdf.end());
  p.input_scale = 1.0f / 32;
  p.multiplier = int32_t(draw(1, 4000));
  p.shift = 16;
  p.round = int64_t(1) << 15;
  p.clip = int32_t(draw(1, 500));
  return p;
}
