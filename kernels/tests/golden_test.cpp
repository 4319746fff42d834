// The same bits on every machine: hashes of outputs for inputs that integers alone make, written down once. A processor that
// this was never run on either gives them or is wrong.
#include <gtest/gtest.h>

#include "ruyicam/kernels/mapping.hpp"
#include "ruyicam/kernels/preprocess.hpp"

using namespace ruyicam::kernels;

namespace {

struct Numbers {  // splitmix64
  uint64_t state;
  uint64_t operator()() {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
};

template <class T>
uint64_t hash(const std::vector<T>& values, uint64_t h = 0xcbf29ce484222325u) {  // FNV-1a, byte by byte
  for (const T value : values)
    for (size_t b = 0; b < sizeof(T); ++b) h = (h ^ (uint64_t(value) >> (8 * b) & 255)) * 0x100000001b3u;
  return h;
}

Mapping golden_mapping() {
  Numbers next{1};
  MappingParams p{.tokens = 12, .in_dim = 70, .out_dim = 9};
  for (int i = 0; i < 9 * 70; ++i) p.weight.push_back(int8_t(next()));
  for (int i = 0; i < 9; ++i) p.bias.push_back(int32_t(next() % 20001) - 10000);
  for (int i = 0; i < 256; ++i) p.lut.push_back(int16_t((i - 128) * 3 / 4));
  for (uint64_t i = 1; i <= 30; ++i) p.noise_cdf.push_back(i * (UINT64_MAX / 31));
  p.input_scale = 0.03f, p.multiplier = 900, p.round = 1 << 15, p.shift = 16, p.clip = 290, p.bits = 7;
  return Mapping(std::move(p));
}

}  // namespace

TEST(Golden, MappingGivesTheBitsOfEveryOtherMachine) {
  Mapping mapping = golden_mapping();
  Numbers next{2};
  std::vector<float> tokens(3 * 12 * 70);
  for (auto& x : tokens) x = float(int32_t(next() % 8001) - 4000) / 1024;
  uint8_t key[32];
  for (auto& k : key) k = uint8_t(next());
  const uint64_t releases[] = {0, 1, uint64_t(1) << 60};
  for (const Backend backend : {Backend::kPortable, Backend::kSimd}) {
    std::vector<int16_t> u(3 * mapping.features());
    std::vector<uint8_t> z(3 * mapping.packed_bytes());
    mapping.project(tokens.data(), 3, 12 * 70, 70, u.data(), backend);
    mapping.map(tokens.data(), 3, 12 * 70, 70, key, 0, releases, z.data(), backend);
    EXPECT_EQ(hash(u), 13861449882129770514u);
    EXPECT_EQ(hash(z), 18008152742152407324u);
  }
}

TEST(Golden, PreprocessGivesTheBitsOfEveryOtherMachine) {
  for (const Backend backend : {Backend::kPortable, Backend::kSimd}) {
    uint64_t h = 0;
    for (const auto& [w, height] : {std::pair(1920, 1080), {641, 363}, {192, 144}}) {
      Numbers next{3};
      Preprocessor p({.width = 192, .height = 144});
      std::vector<uint8_t> frame(size_t(w) * size_t(height));
      std::vector<int8_t> out(p.output_size());
      for (int i = 0; i < 3; ++i) {
        for (size_t at = 0; at < frame.size(); ++at) frame[at] = uint8_t(at % 7 ? frame[at ? at - 1 : 0] + next() % 9 : next());
        p.process(frame.data(), w, height, w, out.data(), backend);
        h = hash(out, h);
      }
    }
    EXPECT_EQ(h, 14814623052816016488u);
  }
}
