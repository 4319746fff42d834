// CUDA twins of the kernels: batched, on the caller's stream. They never synchronise and never allocate, so they can be
// captured into a CUDA graph. All pointers are device pointers. Return value: cudaError_t as int (0 = launched).
#pragma once
#include <cstddef>
#include <cstdint>

namespace ruyicam::kernels::cuda {

// Constants of a mapping; sizes and limits as in ruyicam/kernels/mapping.hpp.
struct MappingArgs {
  int tokens, in_dim, out_dim;
  const int32_t* weight;  // [ceil(in_dim / 4), out_dim]: four neighbouring inputs of int8 each, the first one lowest
  const int32_t* bias;    // [out_dim]
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

// Steps 1 to 4. tokens: [batch, T, D], frames frame_stride floats apart, rows D apart; clipped: [batch, T * d],
// int16, or whole numbers in float for runtimes that have no int16.
int project(const MappingArgs& args, const float* tokens, ptrdiff_t frame_stride, int batch, int16_t* clipped, void* stream);
int project(const MappingArgs& args, const float* tokens, ptrdiff_t frame_stride, int batch, float* clipped, void* stream);

// Steps 5 and 6. Frame i is release number releases[i] under the 32 bytes at keys + i * key_stride (0: one key for all).
// The kernel itself adds 1 to releases[i], so that a graph that is replayed never draws the same noise twice.
// packed: uint8 [batch, packed_bytes].
int release(const MappingArgs& args, const int16_t* clipped, int batch, const uint8_t* keys, ptrdiff_t key_stride,
            uint64_t* releases, uint8_t* packed, void* stream);

// Both in one launch; clipped is room for [batch, T * d].
int map(const MappingArgs& args, const float* tokens, ptrdiff_t frame_stride, int batch, const uint8_t* keys,
        ptrdiff_t key_stride, uint64_t* releases, int16_t* clipped, uint8_t* packed, void* stream);

// One frame of each of `batch` cameras, all of one size; sizes and limits as in ruyicam/kernels/preprocess.hpp.
struct PreprocessArgs {
  int width, height, background_shift, mask_floor;  // the output grid
  int frame_width, frame_height;
};

// luma: `batch` device pointers, in device memory, to rows `stride` bytes apart. previous, background: int32
// [batch, height * width]; a camera starts where previous is kNotStarted. out: int8 [batch, 3, height, width].
constexpr int32_t kNotStarted = INT32_MIN;
int preprocess(const PreprocessArgs& args, const uint8_t* const* luma, ptrdiff_t stride, int batch, int32_t* previous,
               int32_t* background, int8_t* out, void* stream);
// The same of frames that lie `apart` bytes from each other.
int preprocess(const PreprocessArgs& args, const uint8_t* luma, ptrdiff_t apart, ptrdiff_t stride, int batch, int32_t* previous,
               int32_t* background, int8_t* out, void* stream);

}  // namespace ruyicam::kernels::cuda
