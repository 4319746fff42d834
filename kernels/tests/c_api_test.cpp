#include "ruyicam/kernels.h"

#include <gtest/gtest.h>

#include <cstring>

#include "random_params.hpp"

using namespace ruyicam::kernels;

namespace {

ruyicam_mapping_params c_params(const MappingParams& p) {
  return {sizeof(ruyicam_mapping_params), p.tokens, p.in_dim, p.out_dim, p.weight.data(), p.bias.data(), p.lut.data(),
          p.lut.size(), p.noise_cdf.data(), p.noise_cdf.size(), p.input_scale, p.multiplier, p.round, p.shift, p.clip, p.bits};
}

}  // namespace

TEST(CApi, GivesTheBitsOfTheCppClassForManyCameras) {
  std::mt19937_64 rng(9);
  const MappingParams p = random_params(rng, 5, 33, 7, 9);
  const ruyicam_mapping_params c = c_params(p);
  ruyicam_mapping* m = nullptr;
  ASSERT_EQ(ruyicam_mapping_new(&c, &m, nullptr, 0), RUYICAM_OK);
  Mapping plain(p);
  ASSERT_EQ(ruyicam_mapping_features(m), plain.features());
  ASSERT_EQ(ruyicam_mapping_packed_bytes(m), plain.packed_bytes());
  constexpr size_t kBatch = 3, kRow = 40, kFrame = 5 * kRow + 11;
  std::vector<float> tokens(kBatch * kFrame);
  for (auto& x : tokens) x = float(int(rng() % 2000) - 1000) / 500;
  std::vector<uint8_t> keys(kBatch * 32), want(plain.packed_bytes()), one(kBatch * plain.packed_bytes()), two(one);
  for (auto& k : keys) k = uint8_t(rng());
  const uint64_t releases[kBatch] = {7, 7, uint64_t(1) << 40};
  std::vector<int16_t> u(plain.features()), all(kBatch * plain.features());
  ASSERT_EQ(ruyicam_mapping_run(m, tokens.data(), kBatch, kFrame, kRow, keys.data(), 32, releases, one.data(), RUYICAM_SIMD), 0);
  ASSERT_EQ(ruyicam_mapping_project(m, tokens.data(), kBatch, kFrame, kRow, all.data(), RUYICAM_SIMD), RUYICAM_OK);
  ASSERT_EQ(ruyicam_mapping_release(m, all.data(), kBatch, keys.data(), 32, releases, two.data(), RUYICAM_PORTABLE), 0);
  EXPECT_EQ(one, two);
  for (size_t i = 0; i < kBatch; ++i) {
    plain.project(tokens.data() + i * kFrame, kRow, u.data(), Backend::kPortable);
    plain.release(u.data(), keys.data() + 32 * i, releases[i], want.data(), Backend::kPortable);
    EXPECT_EQ(std::memcmp(want.data(), one.data() + i * want.size(), want.size()), 0);
  }
  ruyicam_mapping_free(m);
}

TEST(CApi, SaysWhatIsWrongAndChangesNothing) {
  std::mt19937_64 rng(9);
  const MappingParams p = random_params(rng, 2, 3, 4, 8);
  ruyicam_mapping_params c = c_params(p);
  char message[80];
  auto* const untouched = reinterpret_cast<ruyicam_mapping*>(8);
  ruyicam_mapping* m = untouched;
  c.bits = 17;
  EXPECT_EQ(ruyicam_mapping_new(&c, &m, message, sizeof message), RUYICAM_INVALID);
  EXPECT_STREQ(message, "mapping: bits must be 2 to 16");
  c = c_params(p);
  c.struct_size = 8;
  EXPECT_EQ(ruyicam_mapping_new(&c, &m, message, sizeof message), RUYICAM_INVALID);
  c = c_params(p);
  c.in_dim = 1 << 30;
  EXPECT_EQ(ruyicam_mapping_new(&c, &m, message, sizeof message), RUYICAM_INVALID);
  EXPECT_EQ(ruyicam_mapping_new(nullptr, &m, message, sizeof message), RUYICAM_INVALID);
  char tiny[4];
  EXPECT_EQ(ruyicam_mapping_new(nullptr, &m, tiny, sizeof tiny), RUYICAM_INVALID);
  EXPECT_EQ(std::strlen(tiny), 3u);
  EXPECT_EQ(m, untouched);
  EXPECT_EQ(ruyicam_mapping_project(nullptr, nullptr, 0, 0, 0, nullptr, RUYICAM_SIMD), RUYICAM_INVALID);
  EXPECT_EQ(ruyicam_mapping_features(nullptr), 0u);
  ruyicam_mapping_free(nullptr);
  ruyicam_preprocessor* q = nullptr;
  EXPECT_EQ(ruyicam_preprocessor_new(0, 9, 6, 64, &q, message, sizeof message), RUYICAM_INVALID);
  ASSERT_EQ(ruyicam_preprocessor_new(9, 9, 6, 64, &q, message, sizeof message), RUYICAM_OK);
  EXPECT_STREQ(message, "");
  uint8_t frame[64] = {};
  int8_t out[3 * 81];
  EXPECT_EQ(ruyicam_preprocessor_run(q, frame, 8, 8, 8, out, RUYICAM_SIMD), RUYICAM_INVALID);
  EXPECT_EQ(ruyicam_preprocessor_run(q, frame, 8, 8, 8, out, ruyicam_backend(7)), RUYICAM_INVALID);
  EXPECT_EQ(ruyicam_preprocessor_reset(q), RUYICAM_OK);
  ruyicam_preprocessor_free(q);
}
