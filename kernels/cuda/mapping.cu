#include <cuda_runtime.h>

#include "ruyicam_cuda.hpp"

namespace ruyicam::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ uint32_t rotl(uint32_t v, int by) { return __funnelshift_l(v, v, by); }

__device__ void quarter_round(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
  a += b; d = rotl(d ^ a, 16);
  c += d; b = rotl(b ^ c, 12);
  a += b; d = rotl(d ^ a, 8);
  c += d; b = rotl(b ^ c, 7);
}

// One ChaCha20 block (RFC 8439, 2.3) with nonce = 4 zero bytes + release number.
__device__ void chacha20(const uint8_t* key, uint64_t release, uint32_t counter, uint64_t words[8]) {
  uint32_t s[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
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

__device__ int8_t quantize(float h, float scale) {
  float x = __fdiv_rn(h, scale);
  x = x == x ? x : 0.0f;
  return int8_t(__float2int_rn(fminf(fmaxf(x, -127.0f), 127.0f)));
}

__device__ uint64_t isqrt(uint64_t x) {
  uint64_t r = 0;
  for (uint64_t bit = uint64_t(1) << 31; bit != 0; bit >>= 1) {
    const uint64_t t = r | bit;
    if (t * t <= x) r = t;
  }
  return r;
}

// One block maps one frame; shared memory holds the frame's quantised tokens.
__global__ void project_kernel(MappingArgs p, const float* tokens, int16_t* clipped) {
  extern __shared__ int8_t q[];
  __shared__ unsigned long long total;
  const int n = p.tokens * p.out_dim, m = p.tokens * p.in_dim;
  const float* h = tokens + size_t(blockIdx.x) * m;
  int16_t* u = clipped + size_t(blockIdx.x) * n;
  if (threadIdx.x == 0) total = 0;
  for (int i = threadIdx.x; i < m; i += blockDim.x) q[i] = quantize(h[i], p.input_scale);
  __syncthreads();
  unsigned long long mine = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const int t = i / p.out_dim, j = i % p.out_dim;
    int32_t a = p.bias[j];
    for (int k = 0; k < p.in_dim; ++k) a += int32_t(p.weight[size_t(j) * p.in_dim + k]) * q[t * p.in_dim + k];
    const int64_t half = p.lut_size / 2;
    int64_t index = (int64_t(a) * p.multiplier + p.round) >> p.shift;
    index = index < -half ? -half : (index > half - 1 ? half - 1 : index);
    const int32_t v = p.lut[index + half];
    u[i] = int16_t(v);
    mine += (unsigned long long)(int64_t(v) * v);
  }
  atomicAdd(&total, mine);
  __syncthreads();
  if (total <= (unsigned long long)(p.clip) * p.clip) return;
  uint64_t root = isqrt(total);
  root += root * root < total;
  const int64_t factor = int64_t((uint64_t(p.clip) << 16) / root);
  for (int i = threadIdx.x; i < n; i += blockDim.x) u[i] = int16_t(int64_t(u[i]) * factor / 65536);
}

// One thread takes eight features: one ChaCha20 block of words, and a whole number (bits) of packed bytes.
__global__ void release_kernel(MappingArgs p, const int16_t* clipped, const uint8_t* key, uint64_t first,
                               uint8_t* packed) {
  const int n = p.tokens * p.out_dim, bytes = (n * p.bits + 7) / 8;
  const int16_t* u = clipped + size_t(blockIdx.y) * n;
  uint8_t* out = packed + size_t(blockIdx.y) * bytes;
  const int group = blockIdx.x * blockDim.x + threadIdx.x;
  if (group * 8 >= n) return;
  uint64_t words[8];
  chacha20(key, first + blockIdx.y, uint32_t(group), words);
  const int32_t high = (1 << (p.bits - 1)) - 1, low = -high - 1;
  uint64_t buffer = 0;
  int held = 0, at = group * p.bits;
  for (int k = 0; k < 8 && group * 8 + k < n; ++k) {
    int32_t g = -(p.noise_size / 2);
    for (int e = 0; e < p.noise_size; ++e) g += int32_t(words[k] >= p.noise_cdf[e]);
    int32_t v = u[group * 8 + k] + g;
    v = v < low ? low : (v > high ? high : v);
    buffer |= uint64_t(uint32_t(v) & ((1u << p.bits) - 1)) << held;
    for (held += p.bits; held >= 8; held -= 8, buffer >>= 8) out[at++] = uint8_t(buffer);
  }
  if (held > 0) out[at] = uint8_t(buffer);
}

}  // namespace

int map_features(const MappingArgs& p, const float* tokens, int batch, const uint8_t* key, uint64_t first,
                 int16_t* clipped, uint8_t* packed, void* stream) {
  if (batch == 0) return 0;
  const auto s = static_cast<cudaStream_t>(stream);
  const int groups = (p.tokens * p.out_dim + 7) / 8;
  project_kernel<<<batch, kThreads, size_t(p.tokens) * p.in_dim, s>>>(p, tokens, clipped);
  if (const cudaError_t error = cudaGetLastError()) return int(error);
  release_kernel<<<dim3((groups + 31) / 32, batch), 32, 0, s>>>(p, clipped, key, first, packed);
  return int(cudaGetLastError());
}

}  // namespace ruyicam::kernels::cuda
