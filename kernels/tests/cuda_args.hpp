// Constants as the CUDA kernels want them.
#pragma once
#include "../cuda/ruyicam_cuda.hpp"
#include "random_params.hpp"

inline ruyicam::kernels::cuda::MappingArgs cuda_args(const ruyicam::kernels::MappingParams& p, const int32_t* weight,
                                                     const int32_t* bias, const int16_t* lut, const uint64_t* cdf) {
  return {p.tokens, p.in_dim, p.out_dim, weight, bias, lut, int(p.lut.size()), cdf, int(p.noise_cdf.size()), p.input_scale,
          p.multiplier, p.round, p.shift, p.clip, p.bits};
}
