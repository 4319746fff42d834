// Every kernel, portable beside SIMD, in one run; `--benchmark_filter=` picks some.
#include <benchmark/benchmark.h>

#include <random>

#include "../tests/random_params.hpp"
#include "ruyicam/kernels/limits.hpp"
#include "ruyicam/kernels/preprocess.hpp"

using namespace ruyicam::kernels;

namespace {

// The default model's sizes.
constexpr int kTokens = 12, kIn = 64, kOut = 8;

Mapping default_mapping() {
  std::mt19937_64 rng(1);
  MappingParams p = random_params(rng, kTokens, kIn, kOut, 8);
  p.clip = 304;
  p.noise_cdf.clear();
  for (int i = 0; i < 152; ++i) p.noise_cdf.push_back(rng());
  std::sort(p.noise_cdf.begin(), p.noise_cdf.end());
  return Mapping(std::move(p));
}

std::vector<float> random_tokens(size_t count) {
  std::mt19937 rng(2);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> tokens(count);
  for (auto& x : tokens) x = normal(rng);
  return tokens;
}

void project(benchmark::State& state, Backend backend) {
  Mapping mapping = default_mapping();
  const auto tokens = random_tokens(kTokens * kIn);
  std::vector<int16_t> out(mapping.features());
  for (auto _ : state) {
    mapping.project(tokens.data(), kIn, out.data(), backend);
    benchmark::DoNotOptimize(out.data());
  }
}

void release(benchmark::State& state, Backend backend) {
  Mapping mapping = default_mapping();
  std::vector<int16_t> clipped(mapping.features(), 3);
  std::vector<uint8_t> out(mapping.packed_bytes());
  const uint8_t key[32] = {1};
  uint64_t number = 0;
  for (auto _ : state) {
    mapping.release(clipped.data(), key, number++, out.data(), backend);
    benchmark::DoNotOptimize(out.data());
  }
}

void preprocess(benchmark::State& state, Backend backend) {
  const int width = int(state.range(0)), height = int(state.range(1));
  Preprocessor kernel({.width = 192, .height = 144});
  std::vector<uint8_t> frame(size_t(width) * size_t(height));
  std::mt19937 rng(3);
  for (auto& p : frame) p = uint8_t(rng());
  std::vector<int8_t> out(kernel.output_size());
  for (auto _ : state) {
    kernel.process(frame.data(), width, height, width, out.data(), backend);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * width * height);
}

void limits(benchmark::State& state) {
  const std::vector<uint8_t> data(size_t(256) << 20, 1);
  for (auto _ : state) {
    state.counters["int8 MAC/s"] = int8_peak(0.2);
    state.counters["bytes/s"] = read_bandwidth(data.data(), data.size(), 0.2);
  }
}

BENCHMARK(limits)->Iterations(1);
BENCHMARK_CAPTURE(project, portable, Backend::kPortable);
BENCHMARK_CAPTURE(project, simd, Backend::kSimd);
BENCHMARK_CAPTURE(release, portable, Backend::kPortable);
BENCHMARK_CAPTURE(release, simd, Backend::kSimd);
BENCHMARK_CAPTURE(preprocess, portable, Backend::kPortable)->Args({1280, 720})->Args({1920, 1080});
BENCHMARK_CAPTURE(preprocess, simd, Backend::kSimd)->Args({1280, 720})->Args({1920, 1080})->Args({1000, 562});

}  // namespace

BENCHMARK_MAIN();
