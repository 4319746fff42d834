// The CUDA kernels' device code, run on the CPU: the bits of the portable version, on machines without a GPU too.
#include "cuda_on_cpu.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "../cuda/mapping_kernel.cuh"
#include "../cuda/preprocess_kernel.cuh"
#include "cuda_args.hpp"
#include "ruyicam/kernels/preprocess.hpp"

using namespace ruyicam::kernels;

TEST(CudaOnCpu, MappingGivesThePortableBitsAndCountsReleases) {
  std::mt19937_64 rng(21);
  // Tokens and features that do not fit one pass, every bit width's rests, and dimensions that are no multiples of four.
  // The first six have a kernel of their own where the constants are like real ones.
  const int sizes[][5] = {{12, 64, 8, 8, 4}, {12, 64, 8, 8, 4}, {12, 64, 8, 8, 4}, {3, 16, 42, 5, 0},
                          {3, 16, 42, 5, 0}, {3, 16, 42, 5, 0}, {12, 64, 8, 8, 3}, {1, 1, 1, 2, 3},
                          {37, 1022, 3, 7, 3}, {9, 30, 29, 11, 3}, {5, 7, 20, 16, 3}};
  int smalls = 0;
  for (const auto& [t, in, out, bits, apart] : sizes) {
    Mapping mapping(random_params(rng, t, in, out, bits));
    const MappingParams& p = mapping.params();
    const int batch = 2, stride = t * in + apart;
    std::vector<float> tokens(size_t(batch * stride));
    std::normal_distribution<float> normal(0, 3);
    for (auto& x : tokens) x = normal(rng);
    tokens[0] = NAN;
    std::vector<uint8_t> keys(32 * batch);
    for (auto& k : keys) k = uint8_t(rng());
    std::vector<uint64_t> releases{5, uint64_t(1) << 35};
    const auto quads = quads_of(p);
    const cuda::MappingArgs args = cuda_args(p, quads.data(), p.bias.data(), p.lut.data(), p.noise_cdf.data());
    const float inverse = exact_inverse(p.input_scale);
    const bool small = cuda::is_small(args, inverse, tokens.data(), stride);
    smalls += small;
    std::vector<int16_t> u(mapping.features()), got_u(batch * u.size());
    std::vector<uint8_t> z(mapping.packed_bytes()), got_z(batch * z.size());
    for (int round = 0; round < 2; ++round) {
      cuda_on_cpu::run({unsigned(batch), 1}, cuda::kThreads, [&] {
        (small ? cuda::map_kernel<true, true, true> : cuda::map_kernel<true, true, false>)(
            args, inverse, tokens.data(), stride, keys.data(), 32, releases.data(), got_u.data(), got_z.data());
      });
      for (int b = 0; b < batch; ++b) {
        mapping.project(tokens.data() + b * stride, in, u.data(), Backend::kPortable);
        mapping.release(u.data(), keys.data() + 32 * b, releases[size_t(b)] - 1, z.data(), Backend::kPortable);
        ASSERT_TRUE(std::equal(u.begin(), u.end(), got_u.begin() + ptrdiff_t(u.size()) * b)) << t << " " << in;
        ASSERT_TRUE(std::equal(z.begin(), z.end(), got_z.begin() + ptrdiff_t(z.size()) * b)) << t << " " << bits;
      }
    }
    EXPECT_EQ(releases, (std::vector<uint64_t>{7, (uint64_t(1) << 35) + 2}));
  }
  EXPECT_GE(smalls, 2);
}

TEST(CudaOnCpu, PreprocessGivesThePortableBits) {
  std::mt19937 rng(23);
  // Rows that begin where many pixels can be read at once, with and without a rest, and rows that do not; few and many to a cell.
  const int sizes[][5] = {{333, 217, 128, 96, 338}, {640, 480, 192, 144, 656}, {40, 41, 40, 41, 48},
                          {40, 41, 40, 41, 45},     {97, 50, 7, 3, 112},       {33, 1200, 2, 2, 48}};
  for (const auto& [w, h, width, height, stride] : sizes) {
    const int cells = width * height;
    const cuda::PreprocessArgs args{width, height, 6, 64, w, h};
    const auto units = [](int pixels, int n) {
      const int common = std::gcd(pixels, n);
      return cuda::Units{uint32_t(pixels / common), uint32_t(n / common)};
    };
    Preprocessor plain({width, height, 6, 64});
    std::vector<int32_t> previous(size_t(cells), cuda::kNotStarted), background(size_t(cells), 9);
    std::vector<uint32_t> columns(size_t(w), 0);
    std::vector<int8_t> want(plain.output_size()), got(want);
    for (int i = 0; i < 3; ++i) {
      std::vector<uint8_t> frame(size_t(stride * h));
      for (auto& v : frame) v = i == 2 ? 255 : uint8_t(rng());
      cuda_on_cpu::run({unsigned(height), 1}, cuda::kColumnThreads, [&] {
        cuda::preprocess_row(args, units(w, width), units(h, height), frame.data(), stride, previous.data(), background.data(),
                             got.data(), columns.data());
      });
      plain.process(frame.data(), w, h, stride, want.data(), Backend::kPortable);
      ASSERT_EQ(got, want) << w << "x" << h;
    }
  }
}
