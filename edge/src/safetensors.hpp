// Reader of the safetensors format: 8-byte header length, JSON header, raw tensors. Trusts nothing.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ruyicam::edge {

struct Tensor {
  std::string dtype;           // "I8", "I16", "I32", "U64", "F32", …
  std::vector<size_t> shape;
  std::string_view bytes;      // points into the file's bytes

  // Copies the values out. Throws std::invalid_argument if dtype or shape are not the expected ones.
  template <class T>
  std::vector<T> values(const std::string& name, const std::string& want_dtype, const std::vector<size_t>& want_shape) const;
};

// Throws std::invalid_argument with one line for anything that is not a well-formed file.
std::map<std::string, Tensor> parse_safetensors(std::string_view file);

}  // namespace ruyicam::edge
