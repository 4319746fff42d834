// The preprocessing's device code: one block makes one row of one camera's grid. Included by preprocess.cu, and by a test
// that runs it on the CPU.
#pragma once
#include "ruyicam_cuda.hpp"

namespace ruyicam::kernels::cuda {

constexpr int kColumnThreads = 256;

// A line of pixels in cells: lengths in units that both are whole numbers of.
struct Units {
  uint32_t cell, pixel;
};

struct Overlap {
  int first, last;  // pixels of a cell
  int64_t from, to;
  uint32_t pixel;
  __device__ Overlap(Units u, int j) : from(int64_t(j) * u.cell), to(from + u.cell), pixel(u.pixel) {
    first = int(from / pixel);
    last = int((to - 1) / pixel);
  }
  __device__ uint32_t weight(int i) const {
    const int64_t begin = int64_t(i) * pixel, end = begin + pixel;
    return uint32_t((end < to ? end : to) - (begin > from ? begin : from));
  }
};

__device__ inline int clamp(int v, int low, int high) { return v < low ? low : (v > high ? high : v); }

// grid: (height, batch); columns: room for frame_width sums.
__device__ inline void preprocess_row(const PreprocessArgs& p, Units across, Units down, const uint8_t* luma, ptrdiff_t stride,
                                      int32_t* previous, int32_t* background, int8_t* out, uint32_t* columns) {
  const int y = int(blockIdx.x);
  const Overlap tall(down, y);
  // Neighbouring threads read neighbouring pixels; sums of columns are below 255 * 16384.
  for (int x = int(threadIdx.x); x < p.frame_width; x += kColumnThreads) {
    uint32_t sum = 0;
    for (int r = tall.first; r <= tall.last; ++r) sum += tall.weight(r) * luma[r * stride + x];
    columns[x] = sum;
  }
  __syncthreads();
  const uint64_t area = uint64_t(across.cell) * down.cell;
  const int cells = p.width * p.height;
  for (int j = int(threadIdx.x); j < p.width; j += kColumnThreads) {
    const Overlap wide(across, j);
    uint64_t sum = 0;
    for (int i = wide.first; i <= wide.last; ++i) sum += uint64_t(wide.weight(i)) * columns[i];
    const int a = int((16 * sum + area / 2) / area), cell = y * p.width + j;
    const bool first = previous[cell] == kNotStarted;
    const int before = first ? a : previous[cell], ground = first ? a * 256 : background[cell];
    const int away = a - (ground >> 8);
    const int weight = clamp((away < 0 ? -away : away) - p.mask_floor, 0, 128);
    out[cell] = int8_t((((a - 2048) >> 4) * weight) >> 7);
    out[cells + cell] = int8_t(clamp((a - before + 4) >> 3, -127, 127));
    out[2 * cells + cell] = int8_t(clamp((away + 4) >> 3, -127, 127));
    background[cell] = ground + ((a * 256 - ground) >> p.background_shift);
    previous[cell] = a;
  }
}

}  // namespace ruyicam::kernels::cuda
