// How a class is made of a mapping's constants in Python: once, for the CPU's and the GPU's.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>

#include "ruyicam/kernels/mapping.hpp"

namespace ruyicam::kernels {

template <class Class>
void def_constants(pybind11::class_<Class>& c) {
  namespace py = pybind11;
  c.def(py::init([](int tokens, int in_dim, int out_dim, std::vector<int8_t> weight, std::vector<int32_t> bias,
                    std::vector<int16_t> lut, std::vector<uint64_t> noise_cdf, float input_scale, int32_t multiplier,
                    int64_t round, int shift, int32_t clip, int bits) {
          return std::make_unique<Class>(MappingParams{tokens, in_dim, out_dim, std::move(weight), std::move(bias),
                                                       std::move(lut), std::move(noise_cdf), input_scale, multiplier, round,
                                                       shift, clip, bits});
        }),
        py::kw_only(), py::arg("tokens"), py::arg("in_dim"), py::arg("out_dim"), py::arg("weight"), py::arg("bias"),
        py::arg("lut"), py::arg("noise_cdf"), py::arg("input_scale"), py::arg("multiplier"), py::arg("round"),
        py::arg("shift"), py::arg("clip"), py::arg("bits"));
}

}  // namespace ruyicam::kernels
