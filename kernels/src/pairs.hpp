// What the twins for AVX2 share: products of pairs of 16 bits, as it has none of four bytes.
#pragma once
#include <immintrin.h>

// On each function rather than on the file, so that no inline function of a header is compiled for this processor alone.
#define RUYICAM_PAIRS __attribute__((target("avx2")))

namespace ruyicam::kernels::pairs {

RUYICAM_PAIRS inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
RUYICAM_PAIRS inline void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

// sum += two products of 16 bits, in every 32-bit lane. By name: GCC 12 multiplies everything first, and keeps sums in memory.
RUYICAM_PAIRS inline void add_products(__m256i& sum, __m256i q, __m256i w) {
  __m256i product;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(q), "x"(w));
}

}  // namespace ruyicam::kernels::pairs
