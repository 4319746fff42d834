// Every kernel on every target of this processor, beside the portable one, in one run; `--benchmark_filter=` picks some.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

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
  p.input_scale = 1.0f / 32, p.multiplier = 1280, p.round = 1 << 15, p.shift = 16, p.clip = 304;
  for (int i = 0; i < kOut; ++i) p.bias[size_t(i)] = 100 * i;
  p.lut.resize(256);
  for (int i = 0; i < 256; ++i) p.lut[size_t(i)] = int16_t((i - 128) * 3 / 8);
  p.noise_cdf.clear();
  for (int i = 0; i < 76; ++i) {
    const uint64_t entry = rng() | 1;
    p.noise_cdf.push_back(entry), p.noise_cdf.push_back(0 - entry);
  }
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

// One benchmark a target: "portable" is the truth, the others are its twins.
template <class Run>
void on_every_target(const std::string& name, Run run, const std::vector<std::vector<int64_t>>& sizes = {}) {
  std::vector<std::string> targets = simd_targets();
  targets.insert(targets.begin(), "portable");
  for (const std::string& target : targets) {
    auto* b = benchmark::RegisterBenchmark((name + "/" + target).c_str(), [=](benchmark::State& state) {
      const bool portable = target == "portable";
      if (!portable) force_simd_target(target);
      run(state, portable ? Backend::kPortable : Backend::kSimd);
      force_simd_target("");
    });
    for (const auto& size : sizes) b->Args(size);
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::RegisterBenchmark("limits", limits)->Iterations(1);
  on_every_target("project", project);
  on_every_target("release", release);
  on_every_target("preprocess", preprocess, {{1280, 720}, {1920, 1080}, {1000, 562}});
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
