#include "ruyicam/kernels/preprocess.hpp"

#include <gtest/gtest.h>

#include <random>
#include <stdexcept>

using namespace ruyicam::kernels;

TEST(Preprocess, EveryTargetGivesTheBitsOfThePortableOne) {
  std::mt19937 rng(5);
  for (const auto& target : simd_targets()) {
    force_simd_target(target);
    for (int round = 0; round < 12; ++round) {
      const int w = 128 + int(rng() % 300), h = 96 + int(rng() % 200), stride = w + int(rng() % 40);
      Preprocessor a({}), b({});
      std::vector<uint8_t> frame(size_t(stride) * size_t(h));
      std::vector<int8_t> x(a.output_size()), y(b.output_size());
      for (int i = 0; i < 3; ++i) {
        for (auto& p : frame) p = uint8_t(rng());
        a.process(frame.data(), w, h, stride, x.data(), Backend::kPortable);
        b.process(frame.data(), w, h, stride, y.data(), Backend::kSimd);
        ASSERT_EQ(x, y) << target;
      }
    }
  }
  force_simd_target("");
}

// Cells of any size: twins by hand take wide ones only, and leave others to the version for all.
TEST(Preprocess, EveryTargetGivesTheBitsOfThePortableOneOnAnyGrid) {
  std::mt19937 rng(6);
  const auto up_to = [&](int most) { return 1 + int(rng() % unsigned(most)); };
  for (const auto& target : simd_targets()) {
    force_simd_target(target);
    for (int round = 0; round < 60; ++round) {
      const PreprocessParams grid{.width = up_to(round % 2 ? 12 : 100), .height = up_to(round % 3 ? 60 : 3)};
      const int w = grid.width + int(rng() % unsigned(12 * grid.width)), h = grid.height + int(rng() % 140u);
      const int stride = w + (round % 4 ? 0 : int(rng() % unsigned(2 * w)));
      Preprocessor a(grid), b(grid);
      std::vector<uint8_t> frame(size_t(stride) * size_t(h - 1) + size_t(w));
      std::vector<int8_t> x(a.output_size()), y(b.output_size());
      for (int i = 0; i < 3; ++i) {
        for (auto& p : frame) p = uint8_t(i == 1 ? 255 : rng());
        a.process(frame.data(), w, h, stride, x.data(), Backend::kPortable);
        b.process(frame.data(), w, h, stride, y.data(), Backend::kSimd);
        ASSERT_EQ(x, y) << target << ": " << w << "x" << h << " on " << grid.width << "x" << grid.height;
      }
    }
  }
  force_simd_target("");
}

TEST(Preprocess, StaticSceneGivesZero) {
  std::mt19937 rng(5);
  Preprocessor p({});
  std::vector<uint8_t> frame(640 * 480);
  for (auto& v : frame) v = uint8_t(rng());
  std::vector<int8_t> out(p.output_size(), 1);
  for (int i = 0; i < 5; ++i) p.process(frame.data(), 640, 480, 640, out.data(), Backend::kSimd);
  EXPECT_EQ(out, std::vector<int8_t>(p.output_size(), 0));
}

TEST(Preprocess, RefusesFramesUnderTheGrid) {
  Preprocessor p({});
  std::vector<uint8_t> frame(127 * 96);
  std::vector<int8_t> out(p.output_size());
  EXPECT_THROW(p.process(frame.data(), 127, 96, 127, out.data(), Backend::kSimd), std::invalid_argument);
}
