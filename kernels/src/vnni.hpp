// What the twins for AVX-512 with VNNI share.
#pragma once
#include <immintrin.h>

// On each function rather than on the file, so that no inline function of a header is compiled for this processor alone.
#define RUYICAM_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

namespace ruyicam::kernels::vnni {

// sum += four products of unsigned by signed bytes, in every 32-bit lane. By name: from the intrinsic GCC 12 copies every
// sum in each turn of a loop.
RUYICAM_VNNI inline void add_products(__m256i& sum, __m256i q, __m256i w) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(q), "v"(w));
}
RUYICAM_VNNI inline void add_products(__m512i& sum, __m512i q, __m512i w) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(q), "v"(w));
}

}  // namespace ruyicam::kernels::vnni
