#include <cuda_runtime.h>

#include "mapping_kernel.cuh"
#include "ruyicam/kernels/mapping.hpp"

namespace ruyicam::kernels::cuda {
namespace {

template <bool kProject, bool kRelease, class T>
int launch(const MappingArgs& p, const float* tokens, ptrdiff_t frame_stride, int batch, const uint8_t* keys,
           ptrdiff_t key_stride, uint64_t* releases, T* clipped, uint8_t* packed, void* stream) {
  if (batch <= 0) return batch == 0 ? int(cudaSuccess) : int(cudaErrorInvalidValue);
  const float inverse = exact_inverse(p.input_scale);
  const bool small = kProject && is_small(p, inverse, tokens, frame_stride);
  (small ? map_kernel<kProject, kRelease, kProject, T> : map_kernel<kProject, kRelease, false, T>)
      <<<batch, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p, inverse, tokens, frame_stride, keys, key_stride, releases,
                                                                   clipped, packed);
  return int(cudaGetLastError());
}

}  // namespace

int project(const MappingArgs& p, const float* tokens, ptrdiff_t frame_stride, int batch, int16_t* clipped, void* stream) {
  return launch<true, false>(p, tokens, frame_stride, batch, nullptr, 0, nullptr, clipped, nullptr, stream);
}

int project(const MappingArgs& p, const float* tokens, ptrdiff_t frame_stride, int batch, float* clipped, void* stream) {
  return launch<true, false>(p, tokens, frame_stride, batch, nullptr, 0, nullptr, clipped, nullptr, stream);
}

int release(const MappingArgs& p, const int16_t* clipped, int batch, const uint8_t* keys, ptrdiff_t key_stride,
            uint64_t* releases, uint8_t* packed, void* stream) {
  return launch<false, true>(p, nullptr, 0, batch, keys, key_stride, releases, const_cast<int16_t*>(clipped), packed, stream);
}

int map(const MappingArgs& p, const float* tokens, ptrdiff_t frame_stride, int batch, const uint8_t* keys,
        ptrdiff_t key_stride, uint64_t* releases, int16_t* clipped, uint8_t* packed, void* stream) {
  return launch<true, true>(p, tokens, frame_stride, batch, keys, key_stride, releases, clipped, packed, stream);
}

}  // namespace ruyicam::kernels::cuda
