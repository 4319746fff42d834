// The 16 words that ChaCha20 begins a release's key stream from, with block counter 0 (RFC 8439, section 2.3).
#pragma once
#include <cstdint>

namespace ruyicam::kernels {

inline uint32_t load32(const uint8_t* p) {
  return uint32_t(p[0]) | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24;
}

inline void chacha20_state(const uint8_t* key, const uint8_t* nonce, uint32_t counter, uint32_t state[16]) {
  state[0] = 0x61707865, state[1] = 0x3320646e, state[2] = 0x79622d32, state[3] = 0x6b206574;
  for (int i = 0; i < 8; ++i) state[4 + i] = load32(key + 4 * i);
  state[12] = counter;
  for (int i = 0; i < 3; ++i) state[13 + i] = load32(nonce + 4 * i);
}

// Nonce: 4 zero bytes, then the release number as 8 little-endian bytes.
inline void chacha20_state(const uint8_t* key, uint64_t release, uint32_t state[16]) {
  uint8_t nonce[12] = {};
  for (int b = 0; b < 8; ++b) nonce[4 + b] = uint8_t(release >> (8 * b));
  chacha20_state(key, nonce, 0, state);
}

}  // namespace ruyicam::kernels
