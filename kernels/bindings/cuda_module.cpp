// Thin bindings of the CUDA kernels: pointers in, launches out; kernels/gpu.py knows of arrays and shapes.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "constants.hpp"
#include "cuda_constants.hpp"

namespace py = pybind11;
using namespace ruyicam::kernels;
using cuda::check;

namespace {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

class CudaMapping {
 public:
  // The C++ class checks them.
  explicit CudaMapping(const MappingParams& p) : constants_(Mapping(p).params()) {}

  void project(uintptr_t tokens, ptrdiff_t frame_stride, int batch, uintptr_t clipped, uintptr_t stream) const {
    check(cuda::project(constants_.args(), at<const float>(tokens), frame_stride, batch, at<int16_t>(clipped), at<void>(stream)));
  }
  void release(uintptr_t clipped, int batch, uintptr_t keys, ptrdiff_t key_stride, uintptr_t releases, uintptr_t packed,
               uintptr_t stream) const {
    check(cuda::release(constants_.args(), at<const int16_t>(clipped), batch, at<const uint8_t>(keys), key_stride, at<uint64_t>(releases),
                        at<uint8_t>(packed), at<void>(stream)));
  }
  void map(uintptr_t tokens, ptrdiff_t frame_stride, int batch, uintptr_t keys, ptrdiff_t key_stride, uintptr_t releases,
           uintptr_t clipped, uintptr_t packed, uintptr_t stream) const {
    check(cuda::map(constants_.args(), at<const float>(tokens), frame_stride, batch, at<const uint8_t>(keys), key_stride,
                    at<uint64_t>(releases), at<int16_t>(clipped), at<uint8_t>(packed), at<void>(stream)));
  }

 private:
  cuda::Constants constants_;
};

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.attr("NOT_STARTED") = cuda::kNotStarted;
  m.def("device_count", [] {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
  });
  m.def("preprocess",
        [](int width, int height, int background_shift, int mask_floor, int frame_width, int frame_height, uintptr_t luma,
           ptrdiff_t apart, ptrdiff_t stride, int batch, uintptr_t previous, uintptr_t background, uintptr_t out,
           uintptr_t stream) {
          check(cuda::preprocess({width, height, background_shift, mask_floor, frame_width, frame_height},
                                 at<const uint8_t>(luma), apart, stride, batch, at<int32_t>(previous),
                                 at<int32_t>(background), at<int8_t>(out), at<void>(stream)));
        });
  py::class_<CudaMapping> mapping(m, "Mapping");
  def_constants(mapping);
  mapping.def("project", &CudaMapping::project, py::call_guard<py::gil_scoped_release>())
      .def("release", &CudaMapping::release, py::call_guard<py::gil_scoped_release>())
      .def("map", &CudaMapping::map, py::call_guard<py::gil_scoped_release>());
}
