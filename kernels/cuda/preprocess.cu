#include <cuda_runtime.h>

#include <numeric>

#include "preprocess_kernel.cuh"

namespace ruyicam::kernels::cuda {
namespace {

// Where the cameras' frames are: by a table, or evenly apart where there is none.
struct Frames {
  const uint8_t* const* table;
  const uint8_t* first;
  ptrdiff_t apart;
  __device__ const uint8_t* at(size_t camera) const { return table ? table[camera] : first + ptrdiff_t(camera) * apart; }
};

__global__ void __launch_bounds__(kColumnThreads)
    preprocess_kernel(PreprocessArgs p, Units across, Units down, Frames luma, ptrdiff_t stride,
                      int32_t* previous, int32_t* background, int8_t* out) {
  extern __shared__ uint32_t columns[];
  const size_t camera = blockIdx.y, cells = size_t(p.width) * p.height;
  preprocess_row(p, across, down, luma.at(camera), stride, previous + camera * cells, background + camera * cells,
                 out + 3 * camera * cells, columns);
}

Units units(int pixels, int cells) {
  const int common = std::gcd(pixels, cells);
  return {uint32_t(pixels / common), uint32_t(cells / common)};
}

int launch(const PreprocessArgs& p, const Frames& luma, ptrdiff_t stride, int batch, int32_t* previous, int32_t* background,
           int8_t* out, void* stream) {
  if (batch < 0 || batch > 65535 || p.width < 1 || p.height < 1 || p.frame_width < p.width || p.frame_height < p.height ||
      p.frame_width > 16384 || p.frame_height > 16384)
    return int(cudaErrorInvalidValue);
  if (batch == 0) return int(cudaSuccess);
  const size_t room = size_t(p.frame_width) * sizeof(uint32_t);
  if (room > 48 * 1024)  // what a kernel gets without asking
    if (const cudaError_t error = cudaFuncSetAttribute(preprocess_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(room)))
      return int(error);
  preprocess_kernel<<<dim3(unsigned(p.height), unsigned(batch)), kColumnThreads, room, static_cast<cudaStream_t>(stream)>>>(
      p, units(p.frame_width, p.width), units(p.frame_height, p.height), luma, stride, previous, background, out);
  return int(cudaGetLastError());
}

}  // namespace

int preprocess(const PreprocessArgs& p, const uint8_t* const* luma, ptrdiff_t stride, int batch, int32_t* previous,
               int32_t* background, int8_t* out, void* stream) {
  return launch(p, {luma, nullptr, 0}, stride, batch, previous, background, out, stream);
}

int preprocess(const PreprocessArgs& p, const uint8_t* luma, ptrdiff_t apart, ptrdiff_t stride, int batch, int32_t* previous,
               int32_t* background, int8_t* out, void* stream) {
  return launch(p, {nullptr, luma, apart}, stride, batch, previous, background, out, stream);
}

}  // namespace ruyicam::kernels::cuda
