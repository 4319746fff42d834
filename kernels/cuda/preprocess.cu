#include <cuda_runtime.h>

#include "ruyicam_cuda.hpp"

namespace ruyicam::kernels::cuda {
namespace {

__device__ int clamp(int v, int low, int high) { return v < low ? low : (v > high ? high : v); }

// One warp averages one output cell; all sums are integers, so their order does not matter.
__global__ void preprocess_kernel(PreprocessArgs p, const uint8_t* luma, int w, int h, ptrdiff_t stride, int first,
                                  int32_t* previous, int32_t* background, int8_t* out) {
  const int cells = p.width * p.height;
  const int cell = int((blockIdx.x * blockDim.x + threadIdx.x) / 32), lane = threadIdx.x % 32;
  if (cell >= cells) return;
  const int64_t left = int64_t(cell % p.width) * w, right = left + w;
  const int64_t top = int64_t(cell / p.width) * h, bottom = top + h;
  uint64_t sum = 0;
  for (int64_t y = top / p.height; y * p.height < bottom; ++y) {
    const int64_t tall = min(bottom, (y + 1) * p.height) - max(top, y * p.height);
    for (int64_t x = left / p.width + lane; x * p.width < right; x += 32) {
      const int64_t wide = min(right, (x + 1) * p.width) - max(left, x * p.width);
      sum += uint64_t(tall * wide) * luma[y * stride + x];
    }
  }
  for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(0xffffffffu, sum, by);
  if (lane != 0) return;
  const uint64_t area = uint64_t(w) * uint64_t(h);
  const int a = int((16 * sum + area / 2) / area);
  const int before = first ? a : previous[cell];
  const int ground = first ? a << 8 : background[cell];
  const int away = a - (ground >> 8);
  const int weight = clamp(abs(away) - p.mask_floor, 0, 128);
  out[cell] = int8_t((((a - 2048) >> 4) * weight) >> 7);
  out[cells + cell] = int8_t(clamp((a - before + 4) >> 3, -127, 127));
  out[2 * cells + cell] = int8_t(clamp((away + 4) >> 3, -127, 127));
  background[cell] = ground + (((a << 8) - ground) >> p.background_shift);
  previous[cell] = a;
}

}  // namespace

int preprocess(const PreprocessArgs& p, const uint8_t* luma, int w, int h, ptrdiff_t stride, int first,
               int32_t* previous, int32_t* background, int8_t* out, void* stream) {
  const int threads = 256, cells = p.width * p.height;
  preprocess_kernel<<<(cells * 32 + threads - 1) / threads, threads, 0, static_cast<cudaStream_t>(stream)>>>(
      p, luma, w, h, stride, first, previous, background, out);
  return int(cudaGetLastError());
}

}  // namespace ruyicam::kernels::cuda
