// Thin bindings: shapes and dtypes are checked here, everything else is in the C++ library.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>

#include "constants.hpp"
#include "ruyicam/kernels/chacha20.hpp"
#include "ruyicam/kernels/limits.hpp"
#include "ruyicam/kernels/mapping.hpp"
#include "ruyicam/kernels/preprocess.hpp"

namespace py = pybind11;
using namespace ruyicam::kernels;

namespace {

Backend backend_of(const std::string& name) {
  if (name == "portable") return Backend::kPortable;
  if (name == "simd") return Backend::kSimd;
  throw std::invalid_argument("backend '" + name + "' is unknown; expected 'portable' or 'simd'");
}

const uint8_t* key_of(const py::bytes& key, std::string_view& hold) {
  hold = std::string_view(key);
  if (hold.size() != 32) throw std::invalid_argument("key must be 32 bytes, got " + std::to_string(hold.size()));
  return reinterpret_cast<const uint8_t*>(hold.data());
}

// Rows may lie apart by any stride; entries of one row must be neighbours.
py::ssize_t row_stride_of(const py::buffer_info& info, py::ssize_t item) {
  if (info.strides[info.ndim - 1] != item && info.shape[info.ndim - 1] > 1)
    throw std::invalid_argument("the last axis must be contiguous");
  if (info.strides[info.ndim - 2] % item != 0) throw std::invalid_argument("row stride is not a multiple of the item");
  return info.strides[info.ndim - 2] / item;
}

// Where the frames of a batch of tokens lie, in floats.
struct Tokens {
  const float* data;
  size_t batch;
  ptrdiff_t frame_stride, row_stride;
  Tokens(const Mapping& mapping, const py::array_t<float>& tokens) {
    const py::buffer_info info = tokens.request();
    const MappingParams& p = mapping.params();
    if (info.ndim != 3 || info.shape[1] != p.tokens || info.shape[2] != p.in_dim)
      throw std::invalid_argument("tokens must be [batch, " + std::to_string(p.tokens) + ", " + std::to_string(p.in_dim) + "]");
    row_stride = row_stride_of(info, sizeof(float));
    if (info.strides[0] % py::ssize_t(sizeof(float)) != 0 || reinterpret_cast<uintptr_t>(info.ptr) % alignof(float) != 0)
      throw std::invalid_argument("tokens are not aligned to whole floats");
    data = static_cast<const float*>(info.ptr), batch = size_t(info.shape[0]), frame_stride = info.strides[0] / 4;
  }
};

py::array_t<int16_t> project(Mapping& self, const py::array_t<float>& tokens, const std::string& backend) {
  const Tokens t(self, tokens);
  py::array_t<int16_t> out({py::ssize_t(t.batch), py::ssize_t(self.features())});
  const Backend b = backend_of(backend);
  int16_t* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  self.project(t.data, t.batch, t.frame_stride, t.row_stride, to, b);
  return out;
}

py::array_t<uint8_t> map(Mapping& self, const py::array_t<float>& tokens,
                         const py::array_t<uint8_t, py::array::c_style>& keys,
                         const py::array_t<uint64_t, py::array::c_style>& releases, const std::string& backend) {
  const Tokens t(self, tokens);
  if (keys.ndim() != 2 || keys.shape(1) != 32 || (keys.shape(0) != 1 && size_t(keys.shape(0)) != t.batch))
    throw std::invalid_argument("keys must be [1 or " + std::to_string(t.batch) + ", 32]");
  if (releases.ndim() != 1 || size_t(releases.shape(0)) != t.batch)
    throw std::invalid_argument("releases must be [" + std::to_string(t.batch) + "]");
  py::array_t<uint8_t> out({py::ssize_t(t.batch), py::ssize_t(self.packed_bytes())});
  const Backend b = backend_of(backend);
  const uint8_t* k = keys.data();
  const ptrdiff_t key_stride = keys.shape(0) == 1 ? 0 : 32;
  const uint64_t* numbers = releases.data();
  uint8_t* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  self.map(t.data, t.batch, t.frame_stride, t.row_stride, k, key_stride, numbers, to, b);
  return out;
}

py::array_t<uint8_t> release(Mapping& self, const py::array_t<int16_t, py::array::c_style>& clipped, const py::bytes& key,
                             uint64_t first, const std::string& backend) {
  const py::ssize_t n = py::ssize_t(self.features()), size = py::ssize_t(self.packed_bytes());
  if (clipped.ndim() != 2 || clipped.shape(1) != n)
    throw std::invalid_argument("clipped must be [batch, " + std::to_string(n) + "] int16");
  std::string_view hold;
  const uint8_t* k = key_of(key, hold);
  py::array_t<uint8_t> out({clipped.shape(0), size});
  const Backend b = backend_of(backend);
  const int16_t* from = clipped.data();
  uint8_t* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  for (py::ssize_t i = 0; i < clipped.shape(0); ++i) self.release(from + i * n, k, first + uint64_t(i), to + i * size, b);
  return out;
}

using Input = py::array_t<int8_t, py::array::c_style>;

Input preprocess(Preprocessor& self, const py::array_t<uint8_t>& luma, const std::optional<Input>& given,
                 const std::string& backend) {
  const py::buffer_info info = luma.request();
  if (info.ndim != 2) throw std::invalid_argument("luma must be [height, width] uint8");
  const py::ssize_t planes = 3, height = self.params().height, width = self.params().width;
  if (given && (given->ndim() != 3 || given->shape(0) != planes || given->shape(1) != height || given->shape(2) != width))
    throw std::invalid_argument("out must be [3, " + std::to_string(height) + ", " + std::to_string(width) + "] int8");
  const py::ssize_t stride = row_stride_of(info, 1);
  Input out = given ? *given : Input({planes, height, width});
  const Backend b = backend_of(backend);
  int8_t* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  self.process(static_cast<const uint8_t*>(info.ptr), int(info.shape[1]), int(info.shape[0]), stride, to, b);
  return out;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.def("simd_targets", &simd_targets);
  m.def("force_simd_target", &force_simd_target, py::arg("name"));
  m.def("isqrt", &isqrt);
  m.def("int8_peak", &int8_peak, py::arg("seconds"), py::call_guard<py::gil_scoped_release>());
  m.def("read_bandwidth", [](const py::array_t<uint8_t, py::array::c_style>& data, double seconds) {
    const uint8_t* from = data.data();
    const size_t size = size_t(data.size());
    py::gil_scoped_release unlocked;
    return read_bandwidth(from, size, seconds);
  }, py::arg("data"), py::arg("seconds"));
  m.def("read_once", [](const py::array_t<uint8_t, py::array::c_style>& data) {
    const uint8_t* from = data.data();
    const size_t size = size_t(data.size());
    py::gil_scoped_release unlocked;
    return read_once(from, size);
  }, py::arg("data"));
  m.def("chacha20_block", [](const py::bytes& key, const py::bytes& nonce, uint32_t counter) {
    std::string_view hold;
    const uint8_t* k = key_of(key, hold);
    const std::string_view n(nonce);
    if (n.size() != 12) throw std::invalid_argument("nonce must be 12 bytes, got " + std::to_string(n.size()));
    uint8_t out[64];
    chacha20_block(k, reinterpret_cast<const uint8_t*>(n.data()), counter, out);
    return py::bytes(reinterpret_cast<const char*>(out), sizeof out);
  });
  m.def("noise_words", [](const py::bytes& key, uint64_t release, size_t count) {
    std::string_view hold;
    const uint8_t* k = key_of(key, hold);
    py::array_t<uint64_t> out{py::ssize_t(count)};
    noise_words(k, release, out.mutable_data(), count);
    return out;
  });
  py::class_<Mapping> mapping(m, "Mapping");
  def_constants(mapping);
  mapping.def("project", &project)
      .def("release", &release)
      .def("map", &map);
  py::class_<Preprocessor>(m, "Preprocessor")
      .def(py::init([](int width, int height, int background_shift, int mask_floor) {
             return Preprocessor(PreprocessParams{width, height, background_shift, mask_floor});
           }),
           py::kw_only(), py::arg("width"), py::arg("height"), py::arg("background_shift"), py::arg("mask_floor"))
      .def("process", &preprocess)
      .def("reset", &Preprocessor::reset);
}
