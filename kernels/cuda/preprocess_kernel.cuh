// The preprocessing's device code: one block makes one row of one camera's grid. Included by preprocess.cu, and by a test
// that runs it on the CPU.
#pragma once
#include "ruyicam_cuda.hpp"

namespace ruyicam::kernels::cuda {

constexpr int kColumnThreads = 128;
constexpr int kMany = 16;           // neighbouring pixels that a thread reads at once
constexpr int kRowsOf16Bits = 257;  // so many pixels add up to at most 16 bits

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

// Adds `weight` times a row's pixels to the sums of its columns.
__device__ inline void add_row(uint32_t (&sums)[kMany], const uint4& row, uint32_t weight) {
  const uint32_t words[4] = {row.x, row.y, row.z, row.w};
#pragma unroll
  for (int k = 0; k < kMany; ++k) sums[k] += weight * (words[k / 4] >> (8 * (k % 4)) & 255u);
}

// The sums of kMany columns over the rows of a cell. Inner rows weigh alike: they are added up first, two columns to a word.
__device__ inline void add_columns(const Overlap& tall, const uint8_t* luma, ptrdiff_t stride, uint32_t (&sums)[kMany]) {
  const auto row = [&](int r) { return *reinterpret_cast<const uint4*>(luma + r * stride); };
  add_row(sums, row(tall.first), tall.weight(tall.first));
  if (tall.last > tall.first) add_row(sums, row(tall.last), tall.weight(tall.last));
  for (int begin = tall.first + 1; begin < tall.last; begin += kRowsOf16Bits) {
    const int end = min(begin + kRowsOf16Bits, tall.last);
    uint32_t even[4] = {}, odd[4] = {};
#pragma unroll 4
    for (int r = begin; r < end; ++r) {
      const uint4 v = row(r);
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) even[k] += words[k] & 0x00ff00ffu, odd[k] += words[k] >> 8 & 0x00ff00ffu;
    }
#pragma unroll
    for (int k = 0; k < kMany; ++k) {
      const uint32_t two = k % 2 ? odd[k / 4] : even[k / 4];
      sums[k] += tall.pixel * (two >> (16 * (k / 2 % 2)) & 0xffffu);
    }
  }
}

// grid: (height, batch); columns: room for frame_width sums.
__device__ inline void preprocess_row(const PreprocessArgs& p, Units across, Units down, const uint8_t* luma, ptrdiff_t stride,
                                      int32_t* previous, int32_t* background, int8_t* out, uint32_t* columns) {
  const int y = int(blockIdx.x);
  const Overlap tall(down, y);
  // Neighbouring threads read neighbouring pixels, many each where they lie so; sums of columns are below 255 * 16384.
  const bool aligned = reinterpret_cast<uintptr_t>(luma) % sizeof(uint4) == 0 && stride % ptrdiff_t(sizeof(uint4)) == 0;
  const int many = aligned ? p.frame_width / kMany : 0;
  for (int i = int(threadIdx.x); i < many; i += kColumnThreads) {
    uint32_t sums[kMany] = {};
    add_columns(tall, luma + kMany * i, stride, sums);
#pragma unroll
    for (int k = 0; k < kMany; ++k) columns[kMany * i + k] = sums[k];
  }
  for (int x = kMany * many + int(threadIdx.x); x < p.frame_width; x += kColumnThreads) {
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
    for (int i = wide.first + 1; i < wide.last; ++i) sum += columns[i];
    sum = sum * wide.pixel + uint64_t(wide.weight(wide.first)) * columns[wide.first];
    if (wide.last > wide.first) sum += uint64_t(wide.weight(wide.last)) * columns[wide.last];
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
