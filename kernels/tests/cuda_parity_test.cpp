// Skips with a reason where no GPU is present; elsewhere demands the bits of the portable version.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "random_params.hpp"
#include "ruyicam/kernels/preprocess.hpp"
#include "ruyicam_cuda.hpp"

using namespace ruyicam::kernels;

namespace {

template <class T>
struct DeviceArray {
  T* data = nullptr;
  explicit DeviceArray(size_t n) { EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data), n * sizeof(T)), cudaSuccess); }
  explicit DeviceArray(const std::vector<T>& v) : DeviceArray(v.size()) {
    EXPECT_EQ(cudaMemcpy(data, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  ~DeviceArray() { cudaFree(data); }
  std::vector<T> host(size_t n) const {
    std::vector<T> v(n);
    EXPECT_EQ(cudaMemcpy(v.data(), data, n * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return v;
  }
};

#define SKIP_WITHOUT_GPU()                                                           \
  int gpus = 0;                                                                      \
  if (cudaGetDeviceCount(&gpus) != cudaSuccess || gpus == 0) GTEST_SKIP() << "no GPU on this machine"

}  // namespace

TEST(CudaParity, MappingGivesThePortableBits) {
  SKIP_WITHOUT_GPU();
  std::mt19937_64 rng(11);
  for (int round = 0; round < 20; ++round) {
    const int t = 1 + int(rng() % 17), in = 1 + int(rng() % 200), out = 1 + int(rng() % 20), batch = 5;
    Mapping mapping(random_params(rng, t, in, out, 2 + int(rng() % 15)));
    const MappingParams& p = mapping.params();
    std::vector<float> tokens(size_t(batch * t * in));
    std::normal_distribution<float> normal(0, 2);
    for (auto& x : tokens) x = normal(rng);
    std::vector<uint8_t> key(32);
    for (auto& k : key) k = uint8_t(rng());
    const size_t n = mapping.features(), bytes = mapping.packed_bytes();
    DeviceArray<int8_t> weight(p.weight);
    DeviceArray<int32_t> bias(p.bias);
    DeviceArray<int16_t> lut(p.lut), clipped(n * batch);
    DeviceArray<uint64_t> cdf(p.noise_cdf);
    DeviceArray<float> h(tokens);
    DeviceArray<uint8_t> k(key), packed(bytes * batch);
    const cuda::MappingArgs args{t, in, out, weight.data, bias.data, lut.data, int(p.lut.size()), cdf.data,
                                 int(p.noise_cdf.size()), p.input_scale, p.multiplier, p.round, p.shift, p.clip, p.bits};
    ASSERT_EQ(cuda::map_features(args, h.data, batch, k.data, 9, clipped.data, packed.data, nullptr), 0);
    const auto got_u = clipped.host(n * batch);
    const auto got_z = packed.host(bytes * batch);
    std::vector<int16_t> u(n);
    std::vector<uint8_t> z(bytes);
    for (int b = 0; b < batch; ++b) {
      mapping.project(tokens.data() + size_t(b * t * in), in, u.data(), Backend::kPortable);
      mapping.release(u.data(), key.data(), 9 + uint64_t(b), z.data(), Backend::kPortable);
      ASSERT_TRUE(std::equal(u.begin(), u.end(), got_u.begin() + ptrdiff_t(n) * b));
      ASSERT_TRUE(std::equal(z.begin(), z.end(), got_z.begin() + ptrdiff_t(bytes) * b));
    }
  }
}

TEST(CudaParity, PreprocessGivesThePortableBits) {
  SKIP_WITHOUT_GPU();
  std::mt19937 rng(13);
  const int w = 333, h = 217, stride = 350;
  Preprocessor plain({});
  const size_t cells = plain.output_size() / 3;
  DeviceArray<int32_t> previous(cells), background(cells);
  DeviceArray<int8_t> out(plain.output_size());
  for (int i = 0; i < 4; ++i) {
    std::vector<uint8_t> frame(size_t(stride) * h);
    for (auto& v : frame) v = uint8_t(rng());
    DeviceArray<uint8_t> luma(frame);
    ASSERT_EQ(cuda::preprocess({128, 96, 6, 64}, luma.data, w, h, stride, i == 0, previous.data, background.data,
                               out.data, nullptr), 0);
    std::vector<int8_t> want(plain.output_size());
    plain.process(frame.data(), w, h, stride, want.data(), Backend::kPortable);
    ASSERT_EQ(out.host(want.size()), want);
  }
}
