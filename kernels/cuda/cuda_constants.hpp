// A mapping's constants in device memory.
#pragma once
#include <cuda_runtime_api.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ruyicam/kernels/mapping.hpp"
#include "ruyicam_cuda.hpp"

namespace ruyicam::kernels::cuda {

inline void check(int status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(cudaError_t(status)));
}

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, values.size() * sizeof(T)));
    data_.reset(static_cast<T*>(memory));
    check(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  const T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { cudaFree(p); }
  };
  std::unique_ptr<T, Free> data_;
};

// On the device that is current when it is made. Throws std::runtime_error.
class Constants {
 public:
  explicit Constants(const MappingParams& p)
      : weight_(quads_of(p)), bias_(p.bias), lut_(p.lut), noise_cdf_(p.noise_cdf),
        args_{p.tokens, p.in_dim, p.out_dim, weight_.get(), bias_.get(), lut_.get(), int(p.lut.size()), noise_cdf_.get(),
              int(p.noise_cdf.size()), p.input_scale, p.multiplier, p.round, p.shift, p.clip, p.bits} {}
  const MappingArgs& args() const { return args_; }

 private:
  DeviceArray<int32_t> weight_, bias_;
  DeviceArray<int16_t> lut_;
  DeviceArray<uint64_t> noise_cdf_;
  MappingArgs args_;
};

}  // namespace ruyicam::kernels::cuda
