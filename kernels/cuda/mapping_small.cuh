// The mapping of small frames, as cameras send them: every number is read once, with one wait for memory, and a thread keeps
// its one feature until it is clipped. Included by mapping_kernel.cuh.
#pragma once
#include "mapping_steps.cuh"

namespace ruyicam::kernels::cuda {

constexpr int kSmallQuads = 1024, kSmallWeights = 512;

struct SmallShared {
  alignas(16) int32_t quads[kSmallQuads];
  int32_t weight[kSmallWeights];
  unsigned long long sums[kWarps];
};

// Whether project_small can: rows of whole 16 bytes in both types, a scale whose division is a multiplication.
inline bool is_small(const MappingArgs& p, float inverse, const float* tokens, ptrdiff_t frame_stride) {
  const int quads = p.in_dim / 4;
  return p.in_dim % 16 == 0 && reinterpret_cast<uintptr_t>(tokens) % 16 == 0 && frame_stride % 4 == 0 && inverse != 0 &&
         p.tokens * p.out_dim <= kThreads && p.tokens * quads <= kSmallQuads && quads * p.out_dim <= kSmallWeights;
}

// Of numbers below 2^32.
__device__ inline unsigned long long warp_sum(uint32_t v) {
  const uint32_t low = __reduce_add_sync(0xffffffffu, v & 0xffffu), high = __reduce_add_sync(0xffffffffu, v >> 16);
  return low + ((unsigned long long)(high) << 16);
}

// As project_frame.
template <class T>
__device__ inline void project_small(const MappingArgs& p, float inverse, const float* h, T* u, SmallShared& shared) {
  const int me = int(threadIdx.x), quads = p.in_dim / 4, n = p.tokens * p.out_dim;
  const int row = int(unsigned(me) / unsigned(p.out_dim)), j = me - row * p.out_dim;
  int32_t even = me < n ? p.bias[j] : 0, odd = 0;
#pragma unroll 1
  for (int i = me; i < quads * p.out_dim; i += kThreads) shared.weight[i] = p.weight[i];
  const auto byte = [&](float x) { return uint32_t(quantize(x * inverse)) & 255u; };
#pragma unroll 2
  for (int i = me; i < p.tokens * quads; i += kThreads) {
    const float4 x = reinterpret_cast<const float4*>(h)[i];
    shared.quads[i] = int32_t(byte(x.x) | byte(x.y) << 8 | byte(x.z) << 16 | byte(x.w) << 24);
  }
  __syncthreads();
  int32_t v = 0;
  if (me < n) {
    const int32_t *input = shared.quads + row * quads, *weight = shared.weight + j;
#pragma unroll 4
    for (int k = 0; k < quads; k += 4, weight += 4 * p.out_dim) {
      const int4 x = *reinterpret_cast<const int4*>(input + k);
      even = __dp4a(weight[0], x.x, even);
      odd = __dp4a(weight[p.out_dim], x.y, odd);
      even = __dp4a(weight[2 * p.out_dim], x.z, even);
      odd = __dp4a(weight[3 * p.out_dim], x.w, odd);
    }
    v = p.lut[table_index(p, even + odd)];
  }
  const unsigned long long mine = warp_sum(uint32_t(v * v));
  if (me % kWarp == 0) shared.sums[me / kWarp] = mine;
  __syncthreads();
  unsigned long long total = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) total += shared.sums[warp];
  if (total > (unsigned long long)(p.clip) * p.clip) v = v * clip_factor(total, p.clip) / 65536;
  if (me < n) u[me] = T(v);
}

}  // namespace ruyicam::kernels::cuda
