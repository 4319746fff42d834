// Bytes as hex digits.
#pragma once
#include <sodium.h>

#include <string>

namespace ruyicam::edge {

// Any container of bytes.
template <class Bytes>
std::string hex(const Bytes& bytes) {
  std::string text(2 * bytes.size() + 1, '\0');
  sodium_bin2hex(text.data(), text.size(), reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  text.pop_back();
  return text;
}

}  // namespace ruyicam::edge
