#include "ruyicam/kernels/limits.hpp"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ruyicam::kernels {
namespace {

using Clock = std::chrono::steady_clock;

// How often `work` (which does `amount` of something) runs in about `seconds`, as amount a second.
template <class Work>
double rate(double seconds, double amount, Work work) {
  work();
  const auto begin = Clock::now();
  double done = 0, elapsed = 0;
  while (elapsed < seconds) {
    work();
    done += amount;
    elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  return done / elapsed;
}

#if defined(__x86_64__) && defined(__GNUC__)
constexpr int kRounds = 20000, kChains = 12;

// Twelve chains of one instruction, which the compiler neither merges nor moves.
__attribute__((target("avx512f,avx512vnni"))) void quads() {
  __m512i sum[kChains] = {};
  const __m512i a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x04030201);
  for (int i = 0; i < kRounds; ++i)
#pragma GCC unroll 12
    for (int k = 0; k < kChains; ++k) asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum[k]) : "v"(a), "v"(b));
}

__attribute__((target("avx2"))) void pairs() {
  __m256i sum[kChains / 2] = {};
  const __m256i a = _mm256_set1_epi32(0x00010002), b = _mm256_set1_epi32(0x00020001);
  for (int i = 0; i < kRounds; ++i)
#pragma GCC unroll 6
    for (int k = 0; k < kChains / 2; ++k) {
      __m256i product;
      asm volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum[k]), "=&x"(product) : "x"(a), "x"(b));
    }
}
#endif

}  // namespace

double int8_peak(double seconds) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx512vnni")) return rate(seconds, double(kRounds) * kChains * 64, quads);
  if (__builtin_cpu_supports("avx2")) return rate(seconds, double(kRounds) * kChains / 2 * 16, pairs);
#endif
  return 0 * seconds;
}

uint64_t read_once(const uint8_t* data, size_t size) {
  const size_t words = size / sizeof(uint64_t);
  const auto* from = reinterpret_cast<const uint64_t*>(data);
  uint64_t a = 0, b = 0, c = 0, d = 0;
  size_t i = 0;
  for (; i + 32 <= words; i += 32)
    for (size_t k = 0; k < 32; k += 4) {
      a ^= from[i + k], b ^= from[i + k + 1], c ^= from[i + k + 2], d ^= from[i + k + 3];
    }
  for (i *= sizeof(uint64_t); i < size; ++i) a ^= data[i];
  return a ^ b ^ c ^ d;
}

double read_bandwidth(const uint8_t* data, size_t size, double seconds) {
  return rate(seconds, double(size), [&] {
    const uint64_t all = read_once(data, size);
    asm volatile("" : : "r"(all));
  });
}

}  // namespace ruyicam::kernels
