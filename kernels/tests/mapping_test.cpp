#include "ruyicam/kernels/mapping.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <thread>

#include "random_params.hpp"
#include "ruyicam/kernels/preprocess.hpp"

using namespace ruyicam::kernels;

TEST(Mapping, EveryTargetGivesTheBitsOfThePortableOne) {
  std::mt19937_64 rng(7);
  for (const auto& target : simd_targets()) {
    force_simd_target(target);
    for (int round = 0; round < 120; ++round) {
      // Every other one with eight features a token, as cameras have them.
      const bool eight = round % 2;
      const int t = 1 + int(rng() % 30), in = 1 + int(rng() % (eight ? 64 : 200)), out = eight ? 8 : 1 + int(rng() % 20);
      const int bits = 2 + int(rng() % 15);
      Mapping mapping(random_params(rng, t, in, out, bits));
      std::vector<float> tokens(size_t(t) * size_t(in));
      std::normal_distribution<float> normal(0, 2);
      for (auto& x : tokens) x = normal(rng);
      // What rounds to the ends and beyond, and what is no number.
      const float far = mapping.params().input_scale, infinite = std::numeric_limits<float>::infinity();
      const float odd[] = {NAN,       infinite,   -infinite, 127.5f * far, -127.5f * far,
                           128 * far, -128 * far, 3e9f * far, -3e9f * far};
      for (int i = int(rng() % 4); i > 0; --i) tokens[rng() % tokens.size()] = odd[rng() % std::size(odd)];
      uint8_t key[32];
      for (auto& k : key) k = uint8_t(rng());
      std::vector<int16_t> a(mapping.features()), b(mapping.features());
      std::vector<uint8_t> pa(mapping.packed_bytes()), pb(mapping.packed_bytes());
      mapping.project(tokens.data(), in, a.data(), Backend::kPortable);
      mapping.project(tokens.data(), in, b.data(), Backend::kSimd);
      ASSERT_EQ(a, b) << target;
      mapping.release(a.data(), key, 5, pa.data(), Backend::kPortable);
      mapping.release(b.data(), key, 5, pb.data(), Backend::kSimd);
      ASSERT_EQ(pa, pb) << target;
    }
  }
  force_simd_target("");
}

TEST(Mapping, ClipHoldsExactly) {
  std::mt19937_64 rng(3);
  for (int round = 0; round < 2000; ++round) {
    std::vector<int16_t> u(1 + rng() % 300);
    for (auto& x : u) x = int16_t(rng());
    const int32_t clip = int32_t(1 + rng() % (1 << 12));
    clip_l2(u.data(), u.size(), clip);
    int64_t sum = 0;
    for (const int64_t x : u) sum += x * x;
    ASSERT_LE(sum, int64_t(clip) * clip);
  }
}

TEST(Mapping, RefusesBadConstants) {
  std::mt19937_64 rng(1);
  MappingParams p = random_params(rng, 2, 3, 4, 8);
  p.bits = 17;
  EXPECT_THROW(Mapping{p}, std::invalid_argument);
  p.bits = 8;
  p.weight.pop_back();
  EXPECT_THROW(Mapping{p}, std::invalid_argument);
}

// Objects share nothing but constants that never change.
TEST(Mapping, ThreadsWithObjectsOfTheirOwnDoNotMeet) {
  std::mt19937_64 rng(17);
  const MappingParams p = random_params(rng, 12, 64, 8, 8);
  std::vector<float> tokens(12 * 64);
  for (auto& x : tokens) x = float(int(rng() % 400) - 200) / 100;
  const std::vector<uint8_t> key(32, 7);
  std::vector<std::vector<uint8_t>> got(4);
  std::vector<std::thread> threads;
  for (auto& out : got)
    threads.emplace_back([&] {
      Mapping mapping(p);
      out.resize(mapping.packed_bytes());
      const uint64_t release = 3;
      for (int i = 0; i < 50; ++i) mapping.map(tokens.data(), 1, 0, 64, key.data(), 0, &release, out.data(), Backend::kSimd);
      Preprocessor preprocessor({});
      std::vector<uint8_t> frame(320 * 240, 9);
      std::vector<int8_t> input(preprocessor.output_size());
      for (int i = 0; i < 3; ++i) preprocessor.process(frame.data(), 320, 240, 320, input.data(), Backend::kSimd);
    });
  for (std::thread& t : threads) t.join();
  for (const auto& out : got) EXPECT_EQ(out, got[0]);
}

TEST(Mapping, TargetsAreNamedAndForcedByName) {
  const std::vector<std::string> all = simd_targets();
  ASSERT_FALSE(all.empty());
  for (const std::string& name : all) force_simd_target(name);
  EXPECT_THROW(force_simd_target(all.back() + "_NONE"), std::invalid_argument);
  force_simd_target("");
  for (const std::string& name : all) RecordProperty(name, 1);
}
