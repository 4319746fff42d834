// Skips with a reason where no GPU is present; elsewhere demands the bits of the portable version.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cuda_args.hpp"
#include "ruyicam/kernels/preprocess.hpp"

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
  for (int round = 0; round < 80; ++round) {
    // Every other one of a size as cameras have it, which has a kernel of its own.
    const bool small = round % 2;
    const int t = 1 + int(rng() % (small ? 12 : 40)), in = small ? 16 * (1 + int(rng() % 4)) : 1 + int(rng() % 1024);
    const int out = 1 + int(rng() % (small ? 8 : 40)), batch = 1 + int(rng() % 70);
    const int stride = t * in + (small ? 4 * int(rng() % 3) : int(rng() % 9));
    Mapping mapping(random_params(rng, t, in, out, 2 + int(rng() % 15)));
    const MappingParams& p = mapping.params();
    std::vector<float> tokens(size_t(batch) * size_t(stride));
    std::normal_distribution<float> normal(0, 2);
    for (auto& x : tokens) x = normal(rng);
    tokens[0] = NAN;
    std::vector<uint8_t> keys(32 * size_t(batch));
    for (auto& k : keys) k = uint8_t(rng());
    std::vector<uint64_t> releases(static_cast<size_t>(batch));
    for (auto& r : releases) r = rng() >> 1;
    const size_t n = mapping.features(), bytes = mapping.packed_bytes();
    DeviceArray<int32_t> weight(quads_of(p)), bias(p.bias);
    DeviceArray<int16_t> lut(p.lut), clipped(n * size_t(batch));
    DeviceArray<uint64_t> cdf(p.noise_cdf), counters(releases);
    DeviceArray<float> h(tokens);
    DeviceArray<uint8_t> k(keys), packed(bytes * size_t(batch));
    const cuda::MappingArgs args = cuda_args(p, weight.data, bias.data, lut.data, cdf.data);
    ASSERT_EQ(cuda::map(args, h.data, stride, batch, k.data, 32, counters.data, clipped.data, packed.data, nullptr), 0);
    const auto got_u = clipped.host(n * size_t(batch));
    const auto got_z = packed.host(bytes * size_t(batch));
    std::vector<int16_t> u(n);
    std::vector<uint8_t> z(bytes);
    for (size_t b = 0; b < size_t(batch); ++b) {
      mapping.project(tokens.data() + b * size_t(stride), in, u.data(), Backend::kPortable);
      mapping.release(u.data(), keys.data() + 32 * b, releases[b], z.data(), Backend::kPortable);
      ASSERT_TRUE(std::equal(u.begin(), u.end(), got_u.begin() + ptrdiff_t(n * b)));
      ASSERT_TRUE(std::equal(z.begin(), z.end(), got_z.begin() + ptrdiff_t(bytes * b)));
      ++releases[b];
    }
    ASSERT_EQ(counters.host(size_t(batch)), releases);
  }
}

// A graph that is replayed must not draw the same noise again.
TEST(CudaParity, AGraphDrawsNewNoiseInEveryReplay) {
  SKIP_WITHOUT_GPU();
  std::mt19937_64 rng(12);
  Mapping mapping(random_params(rng, 12, 64, 8, 8));
  const MappingParams& p = mapping.params();
  const std::vector<float> tokens(12 * 64, 0.5f);
  const std::vector<uint8_t> key(32, 3);
  const size_t n = mapping.features(), bytes = mapping.packed_bytes();
  DeviceArray<int32_t> weight(quads_of(p)), bias(p.bias);
  DeviceArray<int16_t> lut(p.lut), clipped(n);
  DeviceArray<uint64_t> cdf(p.noise_cdf), counter(std::vector<uint64_t>{0});
  DeviceArray<float> h(tokens);
  DeviceArray<uint8_t> k(key), packed(bytes);
  const cuda::MappingArgs args = cuda_args(p, weight.data, bias.data, lut.data, cdf.data);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  ASSERT_EQ(cuda::map(args, h.data, 12 * 64, 1, k.data, 0, counter.data, clipped.data, packed.data, stream), 0);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
  std::vector<int16_t> u(n);
  std::vector<uint8_t> z(bytes);
  mapping.project(tokens.data(), 64, u.data(), Backend::kPortable);
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(cudaGraphLaunch(replay, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    mapping.release(u.data(), key.data(), i, z.data(), Backend::kPortable);
    ASSERT_EQ(packed.host(bytes), z) << "replay " << i;
  }
  cudaGraphExecDestroy(replay), cudaGraphDestroy(graph), cudaStreamDestroy(stream);
}

TEST(CudaParity, PreprocessGivesThePortableBits) {
  SKIP_WITHOUT_GPU();
  std::mt19937 rng(13);
  for (const auto& [w, h] : {std::pair(333, 217), {1920, 1080}, {16384, 97}}) {
    const int stride = w % 2 ? w + 17 : w + 16, batch = 3;
    std::vector<Preprocessor> plain;
    for (int c = 0; c < batch; ++c) plain.emplace_back(PreprocessParams{});
    const size_t size = plain[0].output_size(), cells = size / 3;
    DeviceArray<int32_t> previous(std::vector<int32_t>(batch * cells, cuda::kNotStarted)), background(batch * cells);
    DeviceArray<int8_t> out(batch * size);
    for (int i = 0; i < 4; ++i) {
      std::vector<uint8_t> frames(size_t(batch) * size_t(stride) * size_t(h));
      for (auto& v : frames) v = uint8_t(rng());
      DeviceArray<uint8_t> luma(frames);
      std::vector<const uint8_t*> planes;
      for (int c = 0; c < batch; ++c) planes.push_back(luma.data + size_t(c) * size_t(stride) * size_t(h));
      DeviceArray<const uint8_t*> pointers(planes);
      const cuda::PreprocessArgs args{128, 96, 6, 64, w, h};
      ASSERT_EQ(i % 2 ? cuda::preprocess(args, luma.data, ptrdiff_t(stride) * h, stride, batch, previous.data, background.data,
                                         out.data, nullptr)
                      : cuda::preprocess(args, pointers.data, stride, batch, previous.data, background.data, out.data, nullptr), 0);
      const auto got = out.host(batch * size);
      std::vector<int8_t> want(size);
      for (int c = 0; c < batch; ++c) {
        plain[size_t(c)].process(frames.data() + size_t(c) * size_t(stride) * size_t(h), w, h, stride, want.data(),
                                 Backend::kPortable);
        ASSERT_TRUE(std::equal(want.begin(), want.end(), got.begin() + ptrdiff_t(size) * c));
      }
    }
  }
}
