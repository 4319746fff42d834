// CUDA twins of the kernels, batched, on the caller's stream; they never synchronise and never allocate.
// All pointers are device pointers. Return value: cudaError_t as int (0 = launched).
#pragma once
#include <cstddef>
#include <cstdint>

namespace ruyicam::kernels::cuda {

struct MappingArgs {
  int tokens, in_dim, out_dim;
  const int8_t* weight;
  const int32_t* bias;
  const int16_t* lut;
  int lut_size;
  const uint64_t* noise_cdf;
  int noise_size;
  float input_scale;
  int32_t multiplier;
  int64_t round;
  int shift;
  int32_t clip;
  int bits;
};

// tokens: float [batch, T, D] contiguous; key: 32 bytes; frame i is release first + i;
// clipped: int16 [batch, T * d]; packed: uint8 [batch, packed_bytes].
int map_features(const MappingArgs& args, const float* tokens, int batch, const uint8_t* key, uint64_t first,
                 int16_t* clipped, uint8_t* packed, void* stream);

struct PreprocessArgs {
  int width, height, background_shift, mask_floor;  // of the output grid
};

// One frame. previous, background: int32 [height * width] state; first != 0 starts it. out: int8 [3, height, width].
int preprocess(const PreprocessArgs& args, const uint8_t* luma, int frame_width, int frame_height, ptrdiff_t stride,
               int first, int32_t* previous, int32_t* background, int8_t* out, void* stream);

}  // namespace ruyicam::kernels::cuda
