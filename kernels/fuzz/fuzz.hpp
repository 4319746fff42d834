// What the fuzz targets share: numbers from the fuzzer's bytes, and a stop where two answers differ.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "ruyicam/kernels/dispatch.hpp"

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  template <class T>
  T number() {
    T value{};
    const size_t some = size_ < sizeof value ? size_ : sizeof value;
    std::memcpy(&value, data_, some);
    data_ += some, size_ -= some;
    return value;
  }
  // From `low` to `high`, both included.
  int between(int low, int high) { return low + int(number<uint16_t>() % unsigned(high - low + 1)); }

  template <class T>
  std::vector<T> numbers(size_t count) {
    std::vector<T> out(count);
    for (T& value : out) value = number<T>();
    return out;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

inline void demand(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  std::abort();
}

// One of the targets of this processor, in turn.
inline std::string pick_target(Bytes& bytes) {
  static const std::vector<std::string> all = ruyicam::kernels::simd_targets();
  const std::string& name = all[size_t(bytes.between(0, int(all.size()) - 1))];
  ruyicam::kernels::force_simd_target(name);
  return name;
}
