#include "safetensors.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace ruyicam::edge {
namespace {

constexpr size_t kMaxHeader = 1 << 20;

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument("safetensors: " + message); }

size_t width_of(const std::string& dtype) {
  static const std::map<std::string, size_t> widths = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},   {"I16", 2},  {"U16", 2},
                                                       {"F16", 2},  {"BF16", 2}, {"I32", 4}, {"U32", 4},  {"F32", 4},
                                                       {"I64", 8},  {"U64", 8}, {"F64", 8}};
  const auto found = widths.find(dtype);
  if (found == widths.end()) fail("dtype '" + dtype + "' is unknown");
  return found->second;
}

std::string describe(const std::string& dtype, const std::vector<size_t>& shape) {
  std::string text = dtype + " [";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

std::map<std::string, Tensor> parse_safetensors(std::string_view file) {
  if (file.size() < 8) fail("file is shorter than its header length");
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | uint8_t(file[size_t(i)]);
  if (length > kMaxHeader || length > file.size() - 8) fail("header length is beyond the file");
  const std::string_view data = file.substr(8 + length);
  nlohmann::json header;
  try {
    header = nlohmann::json::parse(file.substr(8, length));
  } catch (const nlohmann::json::exception&) {
    fail("header is not JSON");
  }
  if (!header.is_object()) fail("header is not a JSON object");
  std::map<std::string, Tensor> tensors;
  std::vector<std::pair<size_t, size_t>> spans;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    Tensor tensor;
    size_t begin = 0, end = 0, count = 1;
    try {
      tensor.dtype = entry.at("dtype").get<std::string>();
      for (const auto& side : entry.at("shape")) {
        if (!side.is_number_unsigned()) fail("shape of '" + name + "' is not whole numbers");
        tensor.shape.push_back(side.get<size_t>());
      }
      const auto& offsets = entry.at("data_offsets");
      if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
        fail("data_offsets of '" + name + "' are not two whole numbers");
      begin = offsets[0].get<size_t>();
      end = offsets[1].get<size_t>();
    } catch (const nlohmann::json::exception&) {
      fail("entry '" + name + "' is malformed");
    }
    for (const size_t side : tensor.shape)
      if (__builtin_mul_overflow(count, side, &count)) fail("shape of '" + name + "' is too large");
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, width_of(tensor.dtype), &bytes)) fail("shape of '" + name + "' is too large");
    if (begin > end || end > data.size() || end - begin != bytes) fail("data_offsets of '" + name + "' do not fit");
    tensor.bytes = data.substr(begin, bytes);
    spans.emplace_back(begin, end);
    tensors.emplace(name, std::move(tensor));
  }
  // The tensors must tile the data: no overlap, no hidden bytes.
  std::sort(spans.begin(), spans.end());
  size_t at = 0;
  for (const auto& [begin, end] : spans) {
    if (begin != at) fail("tensors overlap or leave a gap");
    at = end;
  }
  if (at != data.size()) fail("bytes follow the last tensor");
  return tensors;
}

template <class T>
std::vector<T> Tensor::values(const std::string& name, const std::string& want_dtype,
                              const std::vector<size_t>& want_shape) const {
  if (dtype != want_dtype || shape != want_shape)
    fail("tensor '" + name + "' is " + describe(dtype, shape) + ", expected " + describe(want_dtype, want_shape));
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

template std::vector<int8_t> Tensor::values(const std::string&, const std::string&, const std::vector<size_t>&) const;
template std::vector<int16_t> Tensor::values(const std::string&, const std::string&, const std::vector<size_t>&) const;
template std::vector<int32_t> Tensor::values(const std::string&, const std::string&, const std::vector<size_t>&) const;
template std::vector<uint64_t> Tensor::values(const std::string&, const std::string&, const std::vector<size_t>&) const;

}  // namespace ruyicam::edge
