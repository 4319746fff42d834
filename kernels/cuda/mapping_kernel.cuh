// The mapping's device code: one block maps one frame. Included by mapping.cu, and by a test that runs it on the CPU.
#pragma once
#include <type_traits>

#include "mapping_small.cuh"

namespace ruyicam::kernels::cuda {

constexpr int kInFlight = 16;    // loads that a thread waits for together
constexpr int kQuadRoom = 4096;  // quads of rounded inputs in shared memory at a time: at least 16 tokens

__device__ inline uint32_t rotl(uint32_t v, int by) { return __funnelshift_l(v, v, by); }

__device__ inline void quarter_round(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
  a += b; d = rotl(d ^ a, 16);
  c += d; b = rotl(b ^ c, 12);
  a += b; d = rotl(d ^ a, 8);
  c += d; b = rotl(b ^ c, 7);
}

// One ChaCha20 block (RFC 8439, 2.3) with nonce = 4 zero bytes + release number, as eight words.
__device__ inline void chacha20(const uint8_t* key, uint64_t release, uint32_t counter, uint64_t* words) {
  uint32_t s[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    s[4 + i] = uint32_t(key[4 * i]) | uint32_t(key[4 * i + 1]) << 8 | uint32_t(key[4 * i + 2]) << 16 |
               uint32_t(key[4 * i + 3]) << 24;
  s[12] = counter;
  s[13] = 0;
  s[14] = uint32_t(release);
  s[15] = uint32_t(release >> 32);
  uint32_t x[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) x[i] = s[i];
#pragma unroll 1
  for (int round = 0; round < 10; ++round) {
    quarter_round(x[0], x[4], x[8], x[12]);
    quarter_round(x[1], x[5], x[9], x[13]);
    quarter_round(x[2], x[6], x[10], x[14]);
    quarter_round(x[3], x[7], x[11], x[15]);
    quarter_round(x[0], x[5], x[10], x[15]);
    quarter_round(x[1], x[6], x[11], x[12]);
    quarter_round(x[2], x[7], x[8], x[13]);
    quarter_round(x[3], x[4], x[9], x[14]);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i)
    words[i] = uint64_t(x[2 * i] + s[2 * i]) | uint64_t(x[2 * i + 1] + s[2 * i + 1]) << 32;
}

// A dot product of `quads` quads; weights of one output are `apart` words apart, and many are on their way at once.
__device__ inline int32_t dot(const int32_t* weight, int apart, const int32_t* input, int quads, int32_t sum) {
  for (int first = 0; first < quads; first += kInFlight) {
    int32_t w[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) w[k] = first + k < quads ? weight[size_t(first + k) * apart] : 0;
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      if (first + k < quads) sum = __dp4a(w[k], input[first + k], sum);
  }
  return sum;
}

struct Shared {
  union {
    int32_t quads[kQuadRoom];  // while projecting
    uint64_t words[kThreads];  // while releasing
    SmallShared small;
  };
  int16_t noised[kThreads];
  unsigned long long sums[kWarps];
};

// Features of one frame, clipped, into global memory u [n]: int16, or the same numbers as float.
template <class T>
__device__ inline void project_frame(const MappingArgs& p, float inverse, const float* h, T* u, Shared& shared) {
  const bool aligned = p.in_dim % 4 == 0 && reinterpret_cast<uintptr_t>(h) % sizeof(float4) == 0;
  const int quads = (p.in_dim + 3) / 4, room = kQuadRoom / quads, n = p.tokens * p.out_dim;
  unsigned long long mine = 0;
  for (int first = 0; first < p.tokens; first += room) {
    const int rows = min(room, p.tokens - first);
    __syncthreads();
    for (int i = threadIdx.x; i < rows * quads; i += kThreads) {
      float4 v{0, 0, 0, 0};
      if (aligned) {
        v = reinterpret_cast<const float4*>(h)[size_t(first) * quads + i];
      } else {
        const int row = i / quads, at = 4 * (i % quads);
        const float* from = h + size_t(first + row) * p.in_dim + at;
        v.x = from[0];
        if (at + 1 < p.in_dim) v.y = from[1];
        if (at + 2 < p.in_dim) v.z = from[2];
        if (at + 3 < p.in_dim) v.w = from[3];
      }
      const auto byte = [&](float x) {
        return uint32_t(quantize(inverse != 0 ? x * inverse : __fdiv_rn(x, p.input_scale))) & 255u;
      };
      shared.quads[i] = int32_t(byte(v.x) | byte(v.y) << 8 | byte(v.z) << 16 | byte(v.w) << 24);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < rows * p.out_dim; i += kThreads) {
      const int row = i / p.out_dim, j = i % p.out_dim;
      const int32_t v = p.lut[table_index(p, dot(p.weight + j, p.out_dim, shared.quads + row * quads, quads, p.bias[j]))];
      u[size_t(first) * p.out_dim + i] = T(v);
      mine += (unsigned long long)(int64_t(v) * v);
    }
  }
  for (int by = kWarp / 2; by > 0; by /= 2) mine += __shfl_down_sync(0xffffffffu, mine, by);
  if (threadIdx.x % kWarp == 0) shared.sums[threadIdx.x / kWarp] = mine;
  __syncthreads();
  unsigned long long total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += shared.sums[warp];
  if (total > (unsigned long long)(p.clip) * p.clip) {
    const int32_t factor = clip_factor(total, p.clip);
    for (int i = threadIdx.x; i < n; i += kThreads) u[i] = T(int32_t(u[i]) * factor / 65536);
  }
}

// u + noise, saturated and packed. Every thread scans the whole table, so that the time does not depend on the noise.
__device__ inline void release_frame(const MappingArgs& p, const int16_t* u, const uint8_t* key, uint64_t number, uint8_t* packed,
                                     Shared& shared) {
  const int n = p.tokens * p.out_dim, total_bytes = (n * p.bits + 7) / 8;
  const int32_t high = (1 << (p.bits - 1)) - 1, low = -high - 1;
  for (int first = 0; first < n; first += kThreads) {
    const int some = min(kThreads, n - first);
    __syncthreads();
    if (threadIdx.x < (some + 7) / 8) chacha20(key, number, uint32_t(first / 8) + threadIdx.x, shared.words + 8 * threadIdx.x);
    __syncthreads();
    if (threadIdx.x < some) {
      const uint64_t word = shared.words[threadIdx.x];
      int32_t g = -(p.noise_size / 2);
      for (int e = 0; e < p.noise_size; ++e) g += int32_t(word >= p.noise_cdf[e]);
      const int32_t v = u[first + threadIdx.x] + g;
      shared.noised[threadIdx.x] = int16_t(v < low ? low : (v > high ? high : v));
    }
    __syncthreads();
    // kThreads features are a whole number of bytes, whatever their bits.
    const int from = first / 8 * p.bits, bytes = min(kThreads / 8 * p.bits, total_bytes - from);
    for (int at = threadIdx.x; at < bytes; at += kThreads) {
      uint32_t byte = 0;
      for (int i = 8 * at / p.bits; i < some && i * p.bits < 8 * at + 8; ++i) {
        const uint32_t z = uint32_t(shared.noised[i]) & ((1u << p.bits) - 1);
        const int shift = i * p.bits - 8 * at;
        byte |= shift >= 0 ? z << shift : z >> -shift;
      }
      packed[from + at] = uint8_t(byte);
    }
  }
}

// kSmall: is_small.
template <bool kProject, bool kRelease, bool kSmall = false, class T = int16_t>
__global__ void __launch_bounds__(kThreads) map_kernel(MappingArgs p, float inverse, const float* tokens,
                                                       ptrdiff_t frame_stride, const uint8_t* keys, ptrdiff_t key_stride,
                                                       uint64_t* releases, T* clipped, uint8_t* packed) {
  __shared__ std::conditional_t<kSmall && !kRelease, SmallShared, Shared> shared;
  const size_t frame = blockIdx.x;
  const size_t n = size_t(p.tokens) * p.out_dim;
  T* u = clipped + frame * n;
  if constexpr (kProject) {
    const float* h = tokens + ptrdiff_t(frame) * frame_stride;
    if constexpr (!kSmall)
      project_frame(p, inverse, h, u, shared);
    else if constexpr (kRelease)
      project_small(p, inverse, h, u, shared.small);
    else
      project_small(p, inverse, h, u, shared);
  }
  if constexpr (kRelease) {
    const uint64_t number = releases[frame];
    release_frame(p, u, keys + ptrdiff_t(frame) * key_stride, number, packed + frame * ((n * p.bits + 7) / 8), shared);
    __syncthreads();
    if (threadIdx.x == 0) releases[frame] = number + 1;
  }
}

}  // namespace ruyicam::kernels::cuda
